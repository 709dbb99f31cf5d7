/*
 * The profile of a program: what every kernel call costs every thread, in nanoseconds, and when each call of the latest
 * run began and ended. -DANNEAL_PROFILE=<clock> asks for it; without it nothing of this is compiled. SITES, the number of
 * calls in the text, and EVENTS, the most pieces of work of a thread in a run, are defined above it. Everything is an
 * int64_t, so that profile.ts reads it as one array, between runs; each thread writes only its own part.
 */
#ifdef ANNEAL_PROFILE
#include <time.h>
static struct {
  int64_t runs, nanoseconds, began, ended; /* of the latest run */
  struct {
    int64_t numEvents;
    int64_t pieces[SITES], nanoseconds[SITES];
    struct {
      int64_t site, began, ended;
    } event[EVENTS];
    int64_t apart[16]; /* no two threads write to one cache line, or to neighbours that are fetched together */
  } thread[THREADS];
} profiles[HOSTED];
#define profile profiles[seat]

static int64_t profile_clock(void) {
  struct timespec t;
  clock_gettime(ANNEAL_PROFILE, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void profile_call(const int tid, const int site, const int64_t began) {
  const int64_t ended = profile_clock();
  profile.thread[tid].pieces[site]++;
  profile.thread[tid].nanoseconds[site] += ended - began;
  const int64_t at = profile.thread[tid].numEvents++;
  if (at >= EVENTS) return;
  profile.thread[tid].event[at].site = site;
  profile.thread[tid].event[at].began = began;
  profile.thread[tid].event[at].ended = ended;
}
/* The other threads wait at the barrier meanwhile. */
static int64_t profile_begin(void) {
  for (int tid = 0; tid < THREADS; tid++) profile.thread[tid].numEvents = 0;
  return profile.began = profile_clock();
}
static void profile_end(void) {
  profile.ended = profile_clock();
  profile.runs++;
  profile.nanoseconds += profile.ended - profile.began;
}
/* The statement that follows is the call (or the run) that is timed. */
#define SITE(site)                                                                                                     \
  for (int64_t began = profile_clock(), once = 1; once; once = 0, profile_call(tid, (site), began))
#define PROFILE_RUN for (int64_t once = profile_begin(); once; once = 0, profile_end())

/* The first rank's. */
void *anneal_profile(void) { return &profiles[0]; }
#else
#define SITE(site)
#define PROFILE_RUN
#endif
