// What the server gives the page: the demo's admins, and whether there are other pages.

export const { demoAdmins, hasOtherPages } = JSON.parse(
  document.getElementById("configuration").textContent,
);
