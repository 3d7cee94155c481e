// A web service: one `handle` for every request.

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

// The most that one write takes.
enum { PIECE = 4096 };

// Where the host puts a handle and whether there is one: `result<own<T>>` of a component.
typedef struct {
    uint8_t is_error;
    int32_t handle;
} handle_result;

// Memory for what the host returns.
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_bytes, size_t align, size_t new_bytes) {
    (void)old_bytes, (void)align;
    void *made = realloc(old, new_bytes);
    if (made == NULL && new_bytes > 0) {
        abort();
    }
    return made;
}

// Answers with a text.
static void answer(int32_t out, int status, const char *body_text) {
    struct {
        text name, value;
    } header = {
        {"content-type", strlen("content-type")},
        {"text/plain; charset=utf-8", strlen("text/plain; charset=utf-8")},
    };
    // `result<own<fields>, header-error>`
    handle_result fields;
    http_fields(&header, 1, &fields);
    int32_t response = http_response(fields.handle);
    http_set_status(response, status);
    handle_result body;
    http_body(response, &body);
    // From here on the host may send the head.
    http_answer(out, 0, response, 0, 0, 0, 0, 0, 0);
    handle_result stream;
    http_stream(body.handle, &stream);
    size_t left = strlen(body_text);
    while (left > 0) {
        size_t bytes = left < PIECE ? left : PIECE;
        // `result<_, stream-error>`: a write that fails means that the client has gone.
        int32_t done[3];
        stream_write(stream.handle, body_text, bytes, done);
        if (*(uint8_t *)done != 0) {
            break;
        }
        body_text += bytes;
        left -= bytes;
    }
    // A body can be finished only when its stream is released.
    stream_drop(stream.handle);
    // `result<_, error-code>`
    int64_t finished[8];
    http_finish(body.handle, 0, 0, finished);
}

__attribute__((export_name("wasi:http/incoming-handler@0.2.0#handle")))
void handle(int32_t request, int32_t out) {
    // `option<string>`
    struct {
        uint8_t is_some;
        text value;
    } path;
    http_path_with_query(request, &path);
    http_drop_request(request);
    // Printed lines are the log of the pod: `sampan logs`.
    int length = path.is_some ? (int)path.value.bytes : 0;
    printf("asked for %.*s\n", length, path.value.at);
    fflush(stdout);
    char *greeting = NULL;
    if (asprintf(&greeting, "Hello from C at %.*s\n", length, path.value.at) < 0) {
        abort();
    }
    answer(out, 200, greeting);
    free(greeting);
    if (path.is_some) {
        free(path.value.at);
    }
}
