"""The operating system, as far as the load generator uses it."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <linux/errqueue.h>
    #ifndef SOL_UDP
    #define SOL_UDP 17
    #endif
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif
    #ifndef SO_TIMESTAMPNS
    #define SO_TIMESTAMPNS 35
    #endif
    #ifndef SCM_TIMESTAMPNS
    #define SCM_TIMESTAMPNS SO_TIMESTAMPNS
    #endif
    """
    const int SOL_UDP
    const int UDP_SEGMENT
    const int UDP_GRO
    const int SO_TIMESTAMPNS
    const int SCM_TIMESTAMPNS

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<time.h>" nogil:
    const int CLOCK_MONOTONIC
    const int CLOCK_REALTIME
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int, timespec *)

cdef extern from "<sys/socket.h>" nogil:
    const int SOL_SOCKET
    const int MSG_DONTWAIT
    const int MSG_NOSIGNAL
    ctypedef uint32_t socklen_t
    struct sockaddr:
        pass
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    void *CMSG_DATA(cmsghdr *)
    int setsockopt(int, int, int, const void *, socklen_t)
    int recvmmsg(int, mmsghdr *, unsigned int, int, timespec *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)
    ssize_t sendto(int, const void *, size_t, int, const sockaddr *, socklen_t)

cdef extern from "<sys/epoll.h>" nogil:
    const int EPOLL_CLOEXEC
    const int EPOLL_CTL_ADD
    const uint32_t EPOLLIN
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<poll.h>" nogil:
    const short POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd *, unsigned long, const timespec *, const void *)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef extern from "<errno.h>" nogil:
    int errno
    const int EAGAIN
    const int EINTR
    const int ENOBUFS
