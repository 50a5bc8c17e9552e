"""The operating system, as far as the pump uses it."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "_native.h" nogil:
    const int SOL_UDP
    const int UDP_SEGMENT
    const int UDP_GRO
    uint64_t fold "turnsvr_fold"(uint64_t, uint64_t)
    uint16_t get16 "turnsvr_get16"(const uint8_t *)
    void put16 "turnsvr_put16"(uint8_t *, uint32_t)
    uint32_t get32 "turnsvr_get32"(const uint8_t *)
    void crc32_prepare "turnsvr_crc32_prepare"()
    uint32_t crc32 "turnsvr_crc32"(const uint8_t *, uint32_t)
    void put32 "turnsvr_put32"(uint8_t *, uint32_t)
    void reset_when_closed "turnsvr_reset_when_closed"(int)
    int load "turnsvr_load"(const int *)
    void store "turnsvr_store"(int *, int)
    uint32_t steered_lane "turnsvr_lane"(uint32_t, uint32_t, uint32_t)
    int steer "turnsvr_steer"(int, uint32_t)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<time.h>" nogil:
    const int CLOCK_MONOTONIC
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int, timespec *)
    int nanosleep(const timespec *, timespec *)

cdef extern from "<sys/prctl.h>" nogil:
    const int PR_SET_TIMERSLACK
    int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)

cdef extern from "<sys/socket.h>" nogil:
    const int AF_INET
    const int AF_INET6
    const int SOL_SOCKET
    const int SO_RCVBUF
    const int SO_RCVBUFFORCE
    const int SO_ERROR
    const int MSG_DONTWAIT
    const int MSG_ERRQUEUE
    const int MSG_NOSIGNAL
    const int SHUT_WR
    int c_shutdown "shutdown"(int, int)
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
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)
    int setsockopt(int, int, int, const void *, socklen_t)
    int getsockopt(int, int, int, void *, socklen_t *)
    int recvmmsg(int, mmsghdr *, unsigned int, int, timespec *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    ssize_t c_recvmsg "recvmsg"(int, msghdr *, int)
    ssize_t c_sendmsg "sendmsg"(int, const msghdr *, int)
    ssize_t c_recv "recv"(int, void *, size_t, int)
    ssize_t c_sendto "sendto"(int, const void *, size_t, int, const sockaddr *, socklen_t)
    ssize_t c_send "send"(int, const void *, size_t, int)

cdef extern from "<netinet/in.h>" nogil:
    const int IPPROTO_IP
    const int IPPROTO_IPV6
    const int IPPROTO_TCP
    const int IP_TOS
    const int IP_PKTINFO
    const int IP_RECVTOS
    const int IP_RECVERR
    const int IP_MTU_DISCOVER
    const int IP_MULTICAST_LOOP
    const int IP_PMTUDISC_DO
    const int IP_PMTUDISC_DONT
    const int IPV6_MULTICAST_LOOP
    const int IPV6_V6ONLY
    const int IPV6_PKTINFO
    const int IPV6_RECVPKTINFO
    const int IPV6_RECVERR
    const int IPV6_RECVTCLASS
    const int IPV6_TCLASS
    const int IPV6_DONTFRAG
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex

cdef extern from "<netinet/tcp.h>" nogil:
    const int TCP_NODELAY

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)

cdef extern from "<linux/errqueue.h>" nogil:
    const int SO_EE_ORIGIN_LOCAL
    const int SO_EE_ORIGIN_ICMP
    const int SO_EE_ORIGIN_ICMP6
    struct sock_extended_err:
        uint32_t ee_errno
        uint8_t ee_origin
        uint8_t ee_type
        uint8_t ee_code
        uint32_t ee_info

cdef extern from "<sys/epoll.h>" nogil:
    const int EPOLL_CLOEXEC
    const int EPOLL_CTL_ADD
    const int EPOLL_CTL_MOD
    const int EPOLL_CTL_DEL
    const uint32_t EPOLLIN
    const uint32_t EPOLLOUT
    const uint32_t EPOLLERR
    const uint32_t EPOLLHUP
    const uint32_t EPOLLET
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<sys/eventfd.h>" nogil:
    const int EFD_CLOEXEC
    const int EFD_NONBLOCK
    int c_eventfd "eventfd"(unsigned int, int)
    int eventfd_read(int, uint64_t *)
    int eventfd_write(int, uint64_t)

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *, size_t, unsigned int)

cdef extern from "<sys/mman.h>" nogil:
    const int PROT_READ
    const int PROT_WRITE
    const int MAP_PRIVATE
    const int MAP_ANONYMOUS
    void *mmap(void *, size_t, int, int, int, ssize_t)
    int munmap(void *, size_t)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, const void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_destroy(pthread_mutex_t *)

cdef extern from "<errno.h>" nogil:
    int errno
    const int EAGAIN
    const int ECONNRESET
    const int EINTR
    const int EINVAL
    const int EIO
    const int EMSGSIZE
    const int ENOMEM
