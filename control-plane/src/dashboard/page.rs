//! The page: static files, part of the program. They hold nothing that is secret.

/// A file: path, content type, text.
pub(super) type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them.
pub(super) const FILES: &[File] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/api.js", SCRIPT, include_str!("page/api.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/config.js", SCRIPT, include_str!("page/config.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/format.js", SCRIPT, include_str!("page/format.js")),
    ("/graph.js", SCRIPT, include_str!("page/graph.js")),
    ("/layout.js", SCRIPT, include_str!("page/layout.js")),
    ("/node.js", SCRIPT, include_str!("page/node.js")),
    ("/tap.js", SCRIPT, include_str!("page/tap.js")),
];
