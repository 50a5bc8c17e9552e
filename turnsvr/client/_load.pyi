from collections.abc import Sequence

from turnsvr.client.load_values import Load, LoadCounts, Receiver, Sender

def exchange(
    senders: Sequence[Sender], receivers: Sequence[Receiver], load: Load, tls: tuple[int, int, int] | None = None
) -> LoadCounts: ...
