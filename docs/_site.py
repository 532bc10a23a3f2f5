"""What Sphinx does not know by itself: types of the engine, options as targets of links, llms.txt and openapi.json."""

import ast
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import fastws
from fastws.web import openapi

ROOT = Path(__file__).parent.parent
OPTION_CLASSES = {"Options", "EndpointOptions", "OptionKeywords", "ServerKeywords", "EndpointKeywords"}


def setup(app):
    app.add_object_type("setting", "setting", objname="option")
    app.add_transform(LinksToFolders)
    app.connect("doctree-read", note_options)
    app.connect("autodoc-process-signature", signature_of_stub)
    app.connect("object-description-transform", type_of_stub)
    app.connect("missing-reference", resolve)
    app.connect("build-finished", write_for_machines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class LinksToFolders(SphinxTransform):
    """A link to a folder of the repository, which is no page and no file, is text that names it."""

    default_priority = 5

    def apply(self):
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = here / link["reftarget"]
            if link["reftype"] == "myst" and target.is_dir():
                name = target.resolve().relative_to(ROOT).as_posix()
                link.replace_self(nodes.literal("", f"{name}/"))


def note_options(app, doctree):
    """Each row of the page of options becomes what `max_backlog` in a docstring leads to."""
    if app.env.docname != "options":
        return
    for row in doctree.findall(nodes.row):
        name = row[0].astext()
        row["ids"].append(name)
        app.env.domains.standard_domain.note_object("setting", name, name)


def stub():
    """The nodes of fastws/_core.pyi by "Class.name"."""
    tree = ast.parse((ROOT / "fastws" / "_core.pyi").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner in classes:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef):
                yield f"{owner.name}.{node.name}", node
            elif isinstance(node, ast.AnnAssign):
                yield f"{owner.name}.{ast.unparse(node.target)}", node


STUB = dict(stub())


def signature_of_stub(app, what, name, obj, options, signature, return_annotation):
    """The engine's methods know no types; their stub does."""
    owner, _, method = getattr(obj, "__qualname__", "").rpartition(".")
    node = STUB.get(f"{owner}.{method}")
    if what != "method" or getattr(obj, "__module__", "") != "fastws._core" or node is None:
        return None
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    return f"({plain(arguments)})", plain(ast.unparse(node.returns))


def type_of_stub(app, domain, objtype, content):
    """The same for its properties."""
    for line in content.parent.findall(addnodes.desc_signature):
        node = STUB.get(line.get("fullname", ""))
        if domain != "py" or objtype not in ("attribute", "property") or node is None:
            continue
        if not any("property" not in part.astext() for part in line.findall(addnodes.desc_annotation)):
            said = node.returns if isinstance(node, ast.FunctionDef) else node.annotation
            line += addnodes.desc_annotation("", f": {plain(ast.unparse(said))}")


def plain(types):
    return types.replace("_Connections", "WebSocket | str | Iterable[WebSocket | str]")


def resolve(app, env, node, content):
    """What `name` in a docstring leads to, if Sphinx does not find it in its class and module.

    It may be a name of fastws, a handler of listeners or an option; all else that is not called like a class is code.
    A type of Python's own, or of a library, is text.
    """
    if node.get("refdomain") != "py":
        return None
    python, standard = env.domains.python_domain, env.domains.standard_domain
    target = node["reftarget"]
    if target.rpartition(".")[0] in ("", "fastws.config") and target.rpartition(".")[2] in OPTION_CLASSES:
        return link(app, node, content, "options", "")
    for name in (f"fastws.{target}", f"fastws.Listener.{target}", f"fastws.WebSocket.{target}"):
        if name in python.objects:
            return link(app, node, content, python.objects[name].docname, python.objects[name].node_id)
    if ("setting", target) in standard.objects:
        return link(app, node, content, *standard.objects["setting", target])
    found = {(known.docname, known.node_id) for name, known in python.objects.items() if name.endswith(f".{target}")}
    if len(found) == 1 and target[:1].isupper():
        return link(app, node, content, *found.pop())
    if node["reftype"] == "obj":
        return None if re.fullmatch(r"[A-Z][a-z]\w*(\.\w+)*", target) else content
    return None if target.startswith("fastws.") else content


def link(app, node, content, page, anchor):
    uri = app.builder.get_relative_uri(node["refdoc"], page) + (anchor and f"#{anchor}")
    return nodes.reference("", "", content, refuri=uri, internal=True)


def write_for_machines(app, exception):
    """llms.txt lists the pages, as text; openapi.json is what `/api/openapi.json` of a server says."""
    if exception is not None or app.builder.name != "html":
        return
    pages = "".join(
        f"- [{app.env.titles[name].astext()}](_sources/{name}.md.txt)\n" for name in in_order(app.env, "index")
    )
    out = Path(app.outdir)
    out.joinpath("llms.txt").write_text(f"# fastws\n\n> {fastws.__doc__}\n\n## Pages\n\n{pages}")
    out.joinpath("openapi.json").write_text(json.dumps(openapi.document("/api"), indent=2))


def in_order(env, name):
    """The pages, as the toctrees have them."""
    yield name
    for below in env.toctree_includes.get(name, ()):
        yield from in_order(env, below)
