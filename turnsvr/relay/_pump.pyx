# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True, freethreading_compatible=False
"""The data plane in C: what turnsvr.relay.compiled wraps as a Pump.

An Engine has lanes, each served by a thread in run(), which needs no GIL and takes none. All other methods belong to
one control thread. It alone changes what lanes look up, each lane's part under that lane's lock.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from turnsvr.relay._system cimport *

import os
import socket

from turnsvr.limits import ANSWERS_SAVED
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

crc32_prepare()

include "_table.pxi"
include "_wire.pxi"
include "_grouping.pxi"
include "_pace.pxi"
include "_upward.pxi"
include "_limiter.pxi"
include "_blake2.pxi"
include "_challenge.pxi"
include "_state.pxi"
include "_waiting.pxi"
include "_socket.pxi"
include "_path.pxi"
include "_foreign.pxi"
include "_order.pxi"
include "_arrivals.pxi"
include "_libssl.pxi"
include "_tls.pxi"
include "_stream.pxi"
include "_tls_stream.pxi"
include "_loop.pxi"
include "_values.pxi"
include "_options.pxi"
include "_sessions.pxi"
include "_sends.pxi"
include "_lanes.pxi"
include "_engine.pxi"
