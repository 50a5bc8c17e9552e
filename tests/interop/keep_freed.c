/* For LD_PRELOAD: turnutils_uclient frees a connection's cipher before it opens the next one, and then shuts it down and
 * frees it again, when the new one may have its place. Here nothing that was freed is used or given away: its ends are
 * let go of at the first SSL_free(), and all that comes later does nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

typedef struct ssl_st SSL;
typedef struct bio_st BIO;
void SSL_set_bio(SSL *ssl, BIO *read_end, BIO *write_end);

#define MOST 65536
static SSL *freed[MOST];
static size_t count;

static int is_freed(SSL *ssl) {
    for (size_t at = 0; at < count; at++)
        if (freed[at] == ssl)
            return 1;
    return 0;
}

void SSL_free(SSL *ssl) {
    if (ssl == NULL || is_freed(ssl) || count == MOST)
        return;
    freed[count++] = ssl;
    SSL_set_bio(ssl, NULL, NULL);
}

int SSL_shutdown(SSL *ssl) {
    int (*shut)(SSL *) = (int (*)(SSL *))dlsym(RTLD_NEXT, "SSL_shutdown");
    return is_freed(ssl) ? 0 : shut(ssl);
}
