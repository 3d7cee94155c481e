// A web service, written as a service worker is: each request is a `fetch` event.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const { pathname } = new URL(request.url);
  // Printed lines are the log of the pod: `sampan logs`.
  console.log(`asked for ${pathname}`);
  return new Response(`Hello from JavaScript at ${pathname}\n`, {
    headers: { "content-type": "text/plain; charset=utf-8" },
  });
}
