// Prints the name of a stop and its state, with types generated from /openapi.json.
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

const client = createClient<paths, `application/${string}json`>({
  baseUrl: process.argv[2],
  headers: { Accept: "application/json" },
});
const board = await client.GET("/board/{TimingPointCodes}", {
  params: { path: { TimingPointCodes: "57330430" }, query: { limit: 2 } },
});
if (!board.data) throw new Error("no board");
const [stop] = board.data.stops;
console.log(stop.name, stop.state);
const invalid = await client.GET("/places", { params: { query: { q: "" } } });
console.log(invalid.error?.status);
