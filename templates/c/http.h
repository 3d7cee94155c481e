// The part of `wasi:http` that this service uses, as a component's core module sees it.
//
// Each function here is one of `wit/world.wit`. For many more of them `wit-bindgen c wit` makes such a
// file (https://github.com/bytecodealliance/wit-bindgen).

#pragma once

#include <stddef.h>
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define HTTP(name) IMPORT("wasi:http/types@0.2.0", name)
#define STREAMS(name) IMPORT("wasi:io/streams@0.2.0", name)

typedef struct {
    char *at;
    size_t bytes;
} text;

HTTP("[method]incoming-request.path-with-query")
void http_path_with_query(int32_t request, void *found);
HTTP("[resource-drop]incoming-request") void http_drop_request(int32_t request);
HTTP("[static]fields.from-list")
void http_fields(const void *entries, size_t count, void *made);
HTTP("[constructor]outgoing-response") int32_t http_response(int32_t fields);
HTTP("[method]outgoing-response.set-status-code")
int32_t http_set_status(int32_t response, int32_t status);
HTTP("[method]outgoing-response.body") void http_body(int32_t response, void *taken);
HTTP("[static]response-outparam.set")
void http_answer(int32_t out, int32_t is_error, int32_t response, int32_t, int64_t, int32_t,
                 int32_t, int32_t, int32_t);
HTTP("[method]outgoing-body.write") void http_stream(int32_t body, void *taken);
HTTP("[static]outgoing-body.finish")
void http_finish(int32_t body, int32_t has_trailers, int32_t trailers, void *done);
STREAMS("[method]output-stream.blocking-write-and-flush")
void stream_write(int32_t stream, const char *at, size_t bytes, void *done);
STREAMS("[resource-drop]output-stream") void stream_drop(int32_t stream);
