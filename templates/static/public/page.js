document.querySelector("#now").textContent = new Date().toLocaleTimeString();
