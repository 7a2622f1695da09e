/* The signalling load of `bench`: calls that are dialled, answered and hung up, over SIP on UDP.

       dialler PORT MODE AMOUNT SECONDS HOLD_MS

   MODE is "rate" (AMOUNT calls are begun each second, evenly) or "busy" (AMOUNT calls are kept up at once, a new one for each that
   has ended), for SECONDS, against the server on loopback PORT; each call is hung up HOLD_MS after its answer. One line of JSON
   tells how it went: calls begun, answered, ended and failed, retransmissions of ours, calls ended per second, and the time from
   INVITE to its 200 in ms. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 200000, SIZE = 8192 };
enum State { NONE, INVITING, TALKING, ENDING, OVER, FAILED };

typedef struct {
    enum State state;
    double began, next, due; /* next: when to retransmit; due: when to hang up */
    double backoff;
    int status;
    float latency;
    char to_tag[64];
} Call;

static Call calls[MOST];
static int sock, media_port, own_port, server_port;
static int begun, answered, ended, failed, retransmitted, first_open;
static double hold;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put(const char *data, int size) {
    if (send(sock, data, (size_t)size, 0) < 0) perror("send");
}

static int open_socket(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int room = 8 << 20, s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&address, size) < 0) {
        perror("bind");
        exit(1);
    }
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    getsockname(s, (struct sockaddr *)&address, &size);
    *port = ntohs(address.sin_port);
    return s;
}

static void request(const char *method, int index, int cseq, const char *branch, const char *body) {
    static char message[SIZE];
    const Call *call = &calls[index];
    int size = snprintf(message, sizeof message,
                        "%s sip:bench@127.0.0.1:%d SIP/2.0\r\n"
                        "Via: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bK%s%d;rport\r\n"
                        "Max-Forwards: 70\r\n"
                        "From: <sip:load@127.0.0.1:%d>;tag=f%d\r\n"
                        "To: <sip:bench@127.0.0.1:%d>%s%s\r\n"
                        "Call-ID: bench-%d-%d\r\n"
                        "CSeq: %d %s\r\n"
                        "Contact: <sip:load@127.0.0.1:%d>\r\n"
                        "%sContent-Length: %zu\r\n\r\n%s",
                        method, server_port, own_port, branch, index, own_port, index, server_port,
                        call->to_tag[0] ? ";tag=" : "", call->to_tag, index, own_port, cseq,
                        strcmp(method, "INVITE") ? method : "INVITE", own_port,
                        *body ? "Content-Type: application/sdp\r\n" : "", strlen(body), body);
    put(message, size);
}

static void invite(int index) {
    char body[512];
    snprintf(body, sizeof body,
             "v=0\r\no=- %d 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
             "m=audio %d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n",
             index, media_port);
    request("INVITE", index, 1, "i", body);
}

static void begin_call(void) {
    Call *call = &calls[begun];
    call->state = INVITING;
    call->began = now();
    call->backoff = 0.5;
    call->next = call->began + call->backoff;
    invite(begun++);
}

static void hang_up(int index) {
    Call *call = &calls[index];
    call->state = ENDING;
    call->backoff = 0.5;
    call->next = now() + call->backoff;
    request("BYE", index, 2, "b", "");
}

/* Copy the value behind `name` in the header lines of `message`, up to `end` characters. */
static int field(const char *message, const char *name, char *value, size_t room) {
    const char *at = strcasestr(message, name);
    if (!at) return 0;
    at += strlen(name);
    size_t size = strcspn(at, "\r\n");
    if (size >= room) return 0;
    memcpy(value, at, size);
    value[size] = 0;
    return 1;
}

static void answer_request(const char *message) {
    static char reply[SIZE];
    char via[512], from[512], to[512], id[256], cseq[128];
    if (!field(message, "\nVia: ", via, sizeof via) || !field(message, "\nFrom: ", from, sizeof from) ||
        !field(message, "\nTo: ", to, sizeof to) || !field(message, "\nCall-ID: ", id, sizeof id) ||
        !field(message, "\nCSeq: ", cseq, sizeof cseq))
        return;
    int size = snprintf(reply, sizeof reply,
                        "SIP/2.0 200 OK\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\n"
                        "Content-Length: 0\r\n\r\n",
                        via, from, to, id, cseq);
    put(reply, size);
}

static void finish(Call *call, int well) {
    call->state = well ? OVER : FAILED;
    if (well) ended++;
    else failed++;
}

static void read_response(const char *message) {
    char id[256], cseq[128], to[512];
    int index, port, status = atoi(message + 8);
    if (!field(message, "\nCall-ID: ", id, sizeof id) || sscanf(id, "bench-%d-%d", &index, &port) != 2 ||
        port != own_port || index < 0 || index >= begun || !field(message, "\nCSeq: ", cseq, sizeof cseq))
        return;
    Call *call = &calls[index];
    if (strstr(cseq, "INVITE")) {
        if (status < 200) {
            call->next = now() + 32;
            return;
        }
        if (field(message, "\nTo: ", to, sizeof to) && strstr(to, "tag="))
            snprintf(call->to_tag, sizeof call->to_tag, "%s", strstr(to, "tag=") + 4);
        request("ACK", index, 1, status < 300 ? "a" : "i", "");
        if (call->state != INVITING) return;
        if (status >= 300) {
            finish(call, 0);
            return;
        }
        answered++;
        call->latency = (float)((now() - call->began) * 1000);
        call->state = TALKING;
        call->due = now() + hold;
    } else if (strstr(cseq, "BYE") && call->state == ENDING) {
        finish(call, status == 200);
    }
}

static void read_socket(void) {
    static char message[65536];
    ssize_t size;
    while ((size = recv(sock, message, sizeof message - 1, MSG_DONTWAIT)) > 0) {
        message[size] = 0;
        if (strncmp(message, "SIP/2.0 ", 8) == 0) read_response(message);
        else if (strncmp(message, "ACK ", 4) != 0) answer_request(message);
    }
}

static void keep_time(void) {
    double at = now();
    while (first_open < begun && calls[first_open].state >= OVER) first_open++;
    for (int i = first_open; i < begun; i++) {
        Call *call = &calls[i];
        if (call->state == TALKING && at >= call->due) {
            hang_up(i);
        } else if ((call->state == INVITING || call->state == ENDING) && at >= call->next) {
            if (call->backoff > 8) {
                finish(call, 0);
                continue;
            }
            call->backoff *= 2;
            call->next = at + call->backoff;
            retransmitted++;
            if (call->state == INVITING) invite(i);
            else request("BYE", i, 2, "b", "");
        }
    }
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(double seconds) {
    static float latencies[MOST];
    int n = 0;
    for (int i = 0; i < begun; i++)
        if (calls[i].latency > 0) latencies[n++] = calls[i].latency;
    qsort(latencies, (size_t)n, sizeof latencies[0], by_size);
    double p50 = n ? latencies[n / 2] : 0, p95 = n ? latencies[n * 95 / 100] : 0, most = n ? latencies[n - 1] : 0;
    printf("{\"begun\": %d, \"answered\": %d, \"ended\": %d, \"failed\": %d, \"retransmitted\": %d, \"per_second\": %.2f, "
           "\"p50\": %.3f, \"p95\": %.3f, \"max\": %.3f}\n",
           begun, answered, ended, failed, retransmitted, ended / seconds, p50, p95, most);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: dialler PORT rate|busy AMOUNT SECONDS HOLD_MS\n");
        return 2;
    }
    server_port = atoi(argv[1]);
    int busy = strcmp(argv[2], "busy") == 0;
    double amount = atof(argv[3]), seconds = atof(argv[4]);
    hold = atof(argv[5]) / 1000;
    sock = open_socket(&own_port);
    open_socket(&media_port); /* RTP goes here and is not read */
    struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)server_port)};
    if (connect(sock, (struct sockaddr *)&server, sizeof server) < 0) {
        perror("connect");
        return 1;
    }
    double began = now(), stop = began + seconds, over = 0;
    for (;;) {
        double at = now();
        if (at < stop) {
            while (begun < MOST && (busy ? begun - ended - failed < amount : begun < (at - began) * amount)) begin_call();
        } else if (!over) {
            over = at;
        }
        if (at >= stop && (ended + failed == begun || at > stop + 40)) break;
        struct pollfd wait = {.fd = sock, .events = POLLIN};
        poll(&wait, 1, 1);
        read_socket();
        keep_time();
    }
    report(busy ? now() - began : seconds);
    return 0;
}
