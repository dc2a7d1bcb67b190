// What the server gives the page: the demo's people and its catalogue.

export const { accounts, products } = JSON.parse(
  document.getElementById("configuration").textContent,
);
export const catalogue = new Map(products.map((product) => [product.id, product]));
export const categories = [...new Set(products.map(({ category }) => category))];
