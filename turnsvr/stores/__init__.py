"""Databases of users, secrets, realms and peer ranges: coturn's tables in SQL, coturn's keys in Redis."""
