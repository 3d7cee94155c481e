// The front end of the shop: what is for sale, a form, and orders whose state is kept up to date.

const form = document.getElementById("order");

async function ask(path, options) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function showProducts() {
  const products = await ask("/api/products");
  const shown = products.map(({ name, cents, stock }) =>
    element("li", `${name}, ${(cents / 100).toFixed(2)} (${stock} left)`));
  document.getElementById("products").replaceChildren(...shown);
  if (!form.product.options.length) {
    form.product.append(...products.map(({ id, name }) => new Option(name, id)));
  }
}

async function showOrders() {
  const orders = await ask("/api/orders");
  const rows = orders.map(({ number, product, quantity, state }) => {
    const row = element("tr", "", { "data-state": state });
    const cells = [number, `${quantity} × ${product.name}`, state];
    row.append(...cells.map((text) => element("td", text)));
    return row;
  });
  document.getElementById("orders").replaceChildren(...rows);
  return orders.some(({ state }) => state !== "packed");
}

// Looks again while there is an order that the worker is not done with.
let timer;
async function show() {
  clearTimeout(timer);
  try {
    await showProducts();
    if (await showOrders()) timer = setTimeout(show, 300);
  } catch (error) {
    form.result.value = `The shop cannot be reached: ${error.message}`;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { product, quantity } = form;
  try {
    const order = await ask("/api/orders", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ product: product.value, quantity: quantity.valueAsNumber }),
    });
    form.result.value = `Thank you! Your order has number ${order.number}.`;
  } catch (error) {
    form.result.value = `Not ordered: ${error.message}.`;
  }
  show();
});

show();
