/* The load of `bench`: one process that plays G.711 phones, each with its own socket, and measures what it hears.

       phones AUDIO PROBES

   AUDIO is a file of mu-law bytes that every phone plays in a loop; the first PROBES phones play silence instead, with
   a click each second. Reads commands, a line each, from standard input and answers with a line of JSON:

       bind N            bind N sockets on loopback               {"ports": [..]}
       call P1 P2 ..     send to these ports, one a phone         {}
       mark              what happened since the mark before      {"seconds": .., "received": .., ..}
       hush              all of them play silence from now on     {}
       talk I            phone I says the first 2 s of AUDIO      {}
       sounds            times, each phone: [when `talk` began, when the sound began that it hears or heard last, when
                         the last packet with sound came]         {"sounds": [[..], ..]}

   Phones send every 20 ms, each at its own time (the phones are spread evenly over 1 ms steps). A socket is read when its phone
   has sent: nobody waits for a packet, since waking a waiter is charged to whoever sends. Arrival times are the kernel's. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 160, HEADER = 12, STEPS = 20, MOST = 4096, CLICKS = 65536, BINS = 500000, BATCH = 16, LINE = 1 << 16, SAID = 16000 };
#define STEP_NS 1000000L
#define TICK_S 0.02
#define PAUSE_S 0.3 /* what comes after so long without sound is another sound */
#define FOR_EVER SIZE_MAX

typedef struct {
    int sock, heard_any;
    uint16_t sequence, heard_sequence;
    uint32_t rtp_time;
    size_t at;
    double last;
    int quiet;
    size_t talks; /* bytes left to say; all of them is for ever */
    double talked, sound_began, sounded;
    unsigned char packet[HEADER + FRAME];
} Phone;

typedef struct {
    int phone;
    double at;
} Click;

static Phone phones[MOST];
static int count, calling, probes;
static unsigned char *audio;
static size_t audio_size;
static uint32_t jitter[BINS + 1]; /* in us; the last bin is everything longer */
static uint32_t lateness[BINS + 1];
static uint64_t received, lost, refused, gaps;
static Click sent_clicks[CLICKS], heard_clicks[CLICKS];
static int sent_count, heard_count;
static double marked, to_monotonic;

static double seconds_of(struct timespec t) { return (double)t.tv_sec + (double)t.tv_nsec / 1e9; }

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return seconds_of(t);
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void add(uint32_t *bins, double seconds) {
    double us = seconds * 1e6;
    bins[us < 0 ? 0 : us > BINS ? BINS : (int)us]++;
}

/* The value below which so many per cent lie, in ms. */
static double percentile(const uint32_t *bins, double percent) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i <= BINS; i++) total += bins[i];
    uint64_t wanted = (uint64_t)ceil((double)total * percent / 100.0);
    for (int i = 0; i <= BINS; i++) {
        seen += bins[i];
        if (seen >= wanted && seen > 0) return i / 1000.0;
    }
    return 0.0;
}

static void bind_phones(int wanted) {
    printf("{\"ports\": [");
    for (count = 0; count < wanted && count < MOST; count++) {
        Phone *p = &phones[count];
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof address;
        int on = 1, room = 256 * 1024;
        p->sock = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (p->sock < 0 || bind(p->sock, (struct sockaddr *)&address, size) < 0) die("bind");
        setsockopt(p->sock, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        setsockopt(p->sock, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        getsockname(p->sock, (struct sockaddr *)&address, &size);
        printf("%s%d", count ? ", " : "", ntohs(address.sin_port));
        uint32_t ssrc = htonl(1000 + (uint32_t)count);
        p->packet[0] = 0x80;
        memcpy(p->packet + 8, &ssrc, 4);
        p->at = audio_size ? ((size_t)count * 13 * FRAME) % audio_size : 0;
        p->quiet = 1;
        p->talks = FOR_EVER;
    }
    printf("]}\n");
}

static void connect_phones(char *line) {
    char *rest = line;
    for (int i = 0; i < count; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        address.sin_port = htons((uint16_t)strtol(rest, &rest, 10));
        if (connect(phones[i].sock, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    }
    calling = 1;
    printf("{}\n");
}

static void print_clicks(const char *name, const Click *clicks, int n) {
    printf(", \"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s[%d, %.6f]", i ? ", " : "", clicks[i].phone, clicks[i].at);
    printf("]");
}

static void print_mark(void) {
    double at = now(CLOCK_MONOTONIC);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\": %.6f, \"received\": %lu, \"lost\": %lu, \"refused\": %lu, \"cpu\": %.6f", at - marked,
           (unsigned long)received, (unsigned long)lost, (unsigned long)refused, cpu);
    printf(", \"jitter_p50\": %.3f, \"jitter_p99\": %.3f, \"jitter_max\": %.3f", percentile(jitter, 50),
           percentile(jitter, 99), percentile(jitter, 100));
    printf(", \"late_p99\": %.3f, \"late_max\": %.3f", percentile(lateness, 99), percentile(lateness, 100));
    print_clicks("clicks_sent", sent_clicks, sent_count);
    print_clicks("clicks_heard", heard_clicks, heard_count);
    printf("}\n");
    received = lost = refused = gaps = 0;
    sent_count = heard_count = 0;
    memset(jitter, 0, sizeof jitter);
    memset(lateness, 0, sizeof lateness);
    marked = at;
}

static void send_packet(int index) {
    Phone *p = &phones[index];
    p->packet[1] = 0;
    uint16_t sequence = htons(p->sequence);
    uint32_t rtp_time = htonl(p->rtp_time);
    memcpy(p->packet + 2, &sequence, 2);
    memcpy(p->packet + 4, &rtp_time, 4);
    if (index >= probes && p->talks == 0) {
        memset(p->packet + HEADER, 0xFF, FRAME);
    } else if (index >= probes) {
        if (p->talks == SAID) p->talked = now(CLOCK_MONOTONIC);
        if (p->talks != FOR_EVER) p->talks -= FRAME;
        memcpy(p->packet + HEADER, audio + p->at, FRAME);
        p->at = (p->at + FRAME) % audio_size;
    } else {
        int click = p->sequence % 50 == 49;
        memset(p->packet + HEADER, click ? 0x80 : 0xFF, FRAME);
        if (click && sent_count < CLICKS) sent_clicks[sent_count++] = (Click){index, now(CLOCK_MONOTONIC)};
    }
    if (send(p->sock, p->packet, sizeof p->packet, 0) < 0) refused++;
    p->sequence++;
    p->rtp_time += FRAME;
}

static double arrival(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return seconds_of(t);
        }
    return now(CLOCK_REALTIME);
}

/* mu-law: large codes are small sounds. */
static int loud(const unsigned char *frame) {
    for (int i = 0; i < FRAME; i++)
        if ((frame[i] & 0x7F) < 0x40) return 1;
    return 0;
}

static void take(int index, const unsigned char *packet, double at) {
    Phone *p = &phones[index];
    uint16_t sequence = (uint16_t)(packet[2] << 8 | packet[3]);
    received++;
    if (p->heard_any) {
        uint16_t missing = (uint16_t)(sequence - p->heard_sequence - 1);
        if (missing < 1000) lost += missing;
        add(jitter, fabs(at - p->last - TICK_S));
    }
    p->heard_any = 1;
    p->heard_sequence = sequence;
    p->last = at;
    if (loud(packet + HEADER)) {
        if (at - p->sounded > PAUSE_S) p->sound_began = at;
        p->sounded = at;
    }
    if (index < probes) {
        int quiet = (packet[HEADER + 80] & 0x7F) > 0x40; /* mu-law: large codes are small sounds */
        if (p->quiet && !quiet && heard_count < CLICKS) heard_clicks[heard_count++] = (Click){index, at + to_monotonic};
        p->quiet = quiet;
    }
}

static void receive_packets(int index) {
    static unsigned char packets[BATCH][2048], control[BATCH][64];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){packets[i], sizeof packets[i]};
        messages[i].msg_hdr = (struct msghdr){
            .msg_iov = &parts[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = sizeof control[i]};
    }
    int n = recvmmsg(phones[index].sock, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++)
        if (messages[i].msg_len >= HEADER + FRAME) take(index, packets[i], arrival(&messages[i].msg_hdr));
}

static void hush(void) {
    for (int i = 0; i < count; i++) phones[i].talks = 0;
    printf("{}\n");
}

static void talk(int index) {
    if (index >= 0 && index < count) phones[index].at = 0, phones[index].talks = SAID;
    printf("{}\n");
}

static void print_sounds(void) {
    printf("{\"sounds\": [");
    for (int i = 0; i < count; i++) {
        Phone *p = &phones[i];
        printf("%s[%.6f, %.6f, %.6f]", i ? ", " : "", p->talked, p->sound_began + to_monotonic, p->sounded + to_monotonic);
    }
    printf("]}\n");
}

static int obey(char *line) {
    if (strncmp(line, "bind ", 5) == 0) bind_phones(atoi(line + 5));
    else if (strncmp(line, "call", 4) == 0) connect_phones(line + 4);
    else if (strncmp(line, "mark", 4) == 0) print_mark();
    else if (strncmp(line, "hush", 4) == 0) hush();
    else if (strncmp(line, "talk ", 5) == 0) talk(atoi(line + 5));
    else if (strncmp(line, "sounds", 6) == 0) print_sounds();
    else return 0;
    fflush(stdout);
    return 1;
}

static void load_audio(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    audio_size = (size_t)ftell(file) / FRAME * FRAME;
    rewind(file);
    audio = malloc(audio_size);
    if (!audio || fread(audio, 1, audio_size, file) != audio_size) die(path);
    fclose(file);
}

int main(int argc, char **argv) {
    static char line[LINE];
    if (argc != 3) {
        fprintf(stderr, "usage: phones AUDIO PROBES\n");
        return 2;
    }
    load_audio(argv[1]);
    probes = atoi(argv[2]);
    to_monotonic = now(CLOCK_MONOTONIC) - now(CLOCK_REALTIME);
    struct pollfd questions = {.fd = STDIN_FILENO, .events = POLLIN};
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (int step = 0;; step = (step + 1) % STEPS) {
        due.tv_nsec += STEP_NS;
        if (due.tv_nsec >= 1000000000L) due.tv_nsec -= 1000000000L, due.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        if (poll(&questions, 1, 0) > 0) {
            if (!fgets(line, sizeof line, stdin) || !obey(line)) return 0;
        }
        if (!calling) continue;
        add(lateness, now(CLOCK_MONOTONIC) - seconds_of(due));
        for (int index = step; index < count; index += STEPS) {
            send_packet(index);
            receive_packets(index);
        }
    }
}
