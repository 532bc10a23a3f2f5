// Mounts the component of a page of the documentation: node --conditions browser mount.mjs vue|svelte FOLDER
import { readFileSync, writeFileSync } from "node:fs"
import { Window } from "happy-dom"
import WebSocket from "./node_modules/ws/wrapper.mjs" // by its file: "ws" itself refuses the condition "browser"

const [kind, folder] = process.argv.slice(2)
const window = new Window()
const globals = { window, document: window.document, navigator: window.navigator, WebSocket }
for (const name of ["Node", "Element", "HTMLElement", "SVGElement", "Text", "Comment", "ShadowRoot", "Event", "HTMLMediaElement"]) {
  globals[name] = window[name]
}
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
}

const source = readFileSync(`${folder}/Cars.${kind}`, "utf8")
const compiled = `${folder}/Cars.mjs`
if (kind === "vue") {
  const { compileScript, parse } = await import("vue/compiler-sfc")
  const { descriptor, errors } = parse(source)
  if (errors.length) throw errors[0]
  writeFileSync(compiled, compileScript(descriptor, { id: "cars", inlineTemplate: true }).content)
  const { createApp } = await import("vue")
  createApp((await import(compiled)).default).mount(document.body)
} else {
  const { compile } = await import("svelte/compiler")
  writeFileSync(compiled, compile(source, { generate: "client", filename: "Cars.svelte" }).js.code)
  const { mount } = await import("svelte")
  mount((await import(compiled)).default, { target: document.body })
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 10))
const button = () => [...document.querySelectorAll("button")].find((button) => !button.disabled)
while (!button()) await turn()
button().click()
while (!document.querySelector("li")) await turn()
console.log(document.querySelector("p").textContent, document.querySelector("li").textContent)
process.exit()
