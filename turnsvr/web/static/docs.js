// Shows /openapi.json to people, and lets them try it. The viewer is ../viewer/; nothing is asked of anybody else.

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#endpoints",
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  requestSnippetsEnabled: true,
});
