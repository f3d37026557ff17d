/* Does a job of one second, again and again. After SIGTERM it finishes the job at hand and exits with 0. */
#include <signal.h>
#include <stdio.h>
#include <time.h>

static volatile sig_atomic_t stopping;

static void on_term(int signal)
{
    (void)signal;
    stopping = 1;
}

int main(void)
{
    signal(SIGTERM, on_term);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (long job = 1; !stopping; job++) {
        /* A signal interrupts the sleep, so it goes on with the time that is left. */
        struct timespec left = {1, 0};
        while (nanosleep(&left, &left) != 0) {
        }
        printf("job %ld done\n", job);
    }
    return 0;
}
