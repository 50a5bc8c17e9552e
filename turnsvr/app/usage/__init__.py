"""Who used what: a record of each session, appended to a file and sent to a web service.

records.py says what is in one, spool.py keeps those that are to be sent, sender.py sends them.
"""
