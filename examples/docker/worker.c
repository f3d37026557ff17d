/* Does a job of one second, again and again. After SIGTERM it finishes the job at hand and exits with 0. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

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
        /* A signal ends sleep(3) early. */
        for (unsigned left = 1; left > 0;) left = sleep(left);
        printf("job %ld done\n", job);
    }
    return 0;
}
