// A web service in JavaScript (WASI 0.2), written as a service worker is: the engine turns each request
// into a `fetch` event.

addEventListener("fetch", (event) => event.respondWith(hello()));

function hello() {
  return new Response("Hello from Sampan, in JavaScript!\n", {
    headers: { "content-type": "text/plain" },
  });
}
