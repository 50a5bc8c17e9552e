# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True, freethreading_compatible=False
"""The data plane in C: what turnsvr.relay.compiled.pump wraps as a Pump.

A PacketEngine has lanes, each served by a thread in run(), which needs no GIL and takes none. All other methods belong
to one control thread. It alone changes what lanes look up, each lane's part under that lane's lock.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from turnsvr.relay.compiled._system cimport *

import os
import socket

from turnsvr.limits import ANSWERS_SAVED
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

crc32_prepare()

include "core/addresses.pxi"
include "core/index.pxi"
include "core/records.pxi"
include "core/table.pxi"
include "core/homes.pxi"
include "core/messages.pxi"
include "core/grouping.pxi"
include "core/pace.pxi"
include "core/blake2.pxi"
include "core/limiter.pxi"
include "core/challenge.pxi"
include "core/cookies.pxi"
include "core/associations.pxi"
include "core/state.pxi"
include "core/elsewhere.pxi"
include "out/sockets.pxi"
include "out/upward.pxi"
include "out/observed.pxi"
include "out/icmp.pxi"
include "out/datagrams.pxi"
include "out/ends.pxi"
include "out/streams.pxi"
include "out/libssl.pxi"
include "out/link.pxi"
include "out/tls.pxi"
include "out/splices.pxi"
include "out/frames.pxi"
include "out/flush.pxi"
include "out/dtls.pxi"
include "out/handover.pxi"
include "out/sends.pxi"
include "path/routes.pxi"
include "path/to_client.pxi"
include "path/to_peer.pxi"
include "path/answers.pxi"
include "path/waiting.pxi"
include "in/frames.pxi"
include "in/tls.pxi"
include "in/splices.pxi"
include "in/streams.pxi"
include "in/order.pxi"
include "in/dtls.pxi"
include "in/handshakes.pxi"
include "in/associations.pxi"
include "in/handover.pxi"
include "in/datagrams.pxi"
include "control/batches.pxi"
include "control/loop.pxi"
include "control/values.pxi"
include "control/options.pxi"
include "control/answers.pxi"
include "control/tls.pxi"
include "control/joins.pxi"
include "control/sessions.pxi"
include "control/lanes.pxi"
include "control/clients.pxi"
include "control/table.pxi"
include "control/upward.pxi"
include "control/packetengine.pxi"
include "control/moving.pxi"
