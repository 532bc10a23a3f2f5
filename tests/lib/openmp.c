/* OpenMP's loop as gcc compiles it, on threads that ThreadSanitizer sees.
 *
 * libgomp itself is not built for ThreadSanitizer, which therefore takes every fork and join for a race. In a build
 * with FASTWS_SANITIZE=thread (see setup.py) this file stands in for it: the few functions that the engine's one
 * `prange` calls, with the same order of events, on threads of their own.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct team {
    void (*body)(void *);
    void *data;
    pthread_barrier_t barrier;
    pthread_mutex_t mutex;
    bool begun;                 /* the loop; by whichever thread comes first */
    long next, end, step;
};

static __thread struct team *team;

static void *member(void *own)
{
    team = own;
    team->body(team->data);
    return NULL;
}

void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)
{
    struct team t = {.body = body, .data = data, .begun = false};
    pthread_t others[threads];
    unsigned i;
    (void)flags;
    pthread_barrier_init(&t.barrier, NULL, threads);
    pthread_mutex_init(&t.mutex, NULL);
    for (i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, member, &t) != 0)
            abort();
    member(&t);
    for (i = 1; i < threads; i++)
        pthread_join(others[i], NULL);
    pthread_mutex_destroy(&t.mutex);
    pthread_barrier_destroy(&t.barrier);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long *from, long *to)
{
    bool more;
    pthread_mutex_lock(&team->mutex);
    more = team->next < team->end;
    *from = team->next;
    *to = team->next += team->step;
    pthread_mutex_unlock(&team->mutex);
    if (*to > team->end)
        *to = team->end;
    return more;
}

bool GOMP_loop_nonmonotonic_dynamic_start(long from, long end, long step, long chunk, long *first, long *last)
{
    pthread_mutex_lock(&team->mutex);
    if (!team->begun) {
        team->begun = true;
        team->next = from;
        team->end = end;
        team->step = step * chunk;
    }
    pthread_mutex_unlock(&team->mutex);
    return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

void GOMP_loop_end_nowait(void)
{
}

void GOMP_barrier(void)
{
    pthread_barrier_wait(&team->barrier);
}

int omp_get_max_threads(void)
{
    return 1;
}
