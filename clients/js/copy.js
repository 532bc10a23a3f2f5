// Brings what the Python package has into this one: there is one source of fastws.js, ../../fastws/client.
import { copyFileSync } from "node:fs";

const copy = (from, to) => copyFileSync(new URL(from, import.meta.url), new URL(to, import.meta.url));
for (const name of ["fastws.js", "fastws.d.ts"]) copy(`../../fastws/client/${name}`, name);
copy("../../LICENSE", "LICENSE");
