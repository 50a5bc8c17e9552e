from collections.abc import Sequence

from turnsvr.client.load_values import Load, Receiver, Sender, Tally

def exchange(
    senders: Sequence[Sender], receivers: Sequence[Receiver], load: Load, tls: tuple[int, int, int] | None = None
) -> Tally: ...
