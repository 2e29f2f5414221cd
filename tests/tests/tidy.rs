//! The rules of the house that a program can check.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floors inside each crate: a module imports only modules on its own floor or below.
const FLOORS: &[(&str, &[(&str, u8)])] = &[
    ("kv/src", &[("server", 6), ("txn", 5), ("raw", 5), ("mvcc", 4), ("raftstore", 3), ("engine", 1)]),
    (
        "sql/src",
        &[
            ("server", 10),
            ("session", 9),
            ("show", 8),
            ("binder", 7),
            ("optimizer", 6),
            ("executor", 5),
            ("ddl", 5),
            ("plan", 4),
            ("statistics", 3),
            ("table", 3),
            ("catalog", 3),
            ("parser", 1),
        ],
    ),
    (
        "pd/src",
        &[
            ("server", 5),
            ("schedule", 4),
            ("cluster", 3),
            ("tso", 2),
            ("id_alloc", 2),
            ("gc_safe_point", 2),
            ("lease", 2),
            ("members", 2),
            ("replicated", 1),
        ],
    ),
    ("kv/client/src", &[("txn", 4), ("raw", 4), ("sender", 3), ("region_cache", 3), ("transport", 1)]),
    ("sql/expr/src", &[("func", 3), ("types", 1)]),
];

/// Crates may depend only on those listed.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("sql/expr", &["proto"]),
    ("kv/client", &["proto"]),
    ("pd", &["proto"]),
    ("kv", &["expr", "proto"]),
    ("sql", &["client", "expr", "proto"]),
];

fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .parent()
        .expect("workspace root")
        .to_path_buf()
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Splits `a::{b, c}, d` at the commas outside braces.
fn split_top(list: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (vec![], String::new(), 0);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items
}

/// The first path segment after `crate::` of each import in a file, braces expanded.
fn crate_imports(text: &str) -> Vec<String> {
    let head =
        |s: String| -> String { s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = vec![];
    for (at, pattern) in text.match_indices("use crate::") {
        let statement = text[at + pattern.len()..].split(';').next().unwrap_or("");
        match statement.strip_prefix('{') {
            Some(inner) => found.extend(split_top(inner)),
            None => found.push(statement.to_string()),
        }
    }
    found.into_iter().map(head).filter(|s| !s.is_empty()).collect()
}

#[test]
fn imports_point_downward_inside_crates() {
    let mut wrong = vec![];
    for (src, floors) in FLOORS {
        let floors: HashMap<&str, u8> = floors.iter().copied().collect();
        let base = root().join(src);
        let mut files = vec![];
        rust_files(&base, &mut files);
        for file in files {
            let relative = file.strip_prefix(&base).expect("below src");
            let first = relative.components().next().and_then(|c| c.as_os_str().to_str()).unwrap_or("");
            let module = first.trim_end_matches(".rs");
            let Some(own) = floors.get(module) else { continue };
            let text = fs::read_to_string(&file).expect("readable source");
            for import in crate_imports(&text) {
                if floors.get(import.as_str()).is_some_and(|other| other > own) {
                    wrong.push(format!(
                        "{src}/{}: {module} (floor {own}) imports {import}",
                        relative.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point upward:\n{}", wrong.join("\n"));
}

#[test]
fn crates_depend_only_on_crates_below_them() {
    let mut wrong = vec![];
    for (dir, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("manifest");
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or("");
        for line in dependencies.lines().filter(|l| l.starts_with("rutile-")) {
            let name = line["rutile-".len()..].split([' ', '.', '=']).next().unwrap_or("");
            if !allowed.contains(&name) {
                wrong.push(format!("{dir} depends on rutile-{name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "crates that look upward:\n{}", wrong.join("\n"));
}

#[test]
fn the_import_reader_sees_braces() {
    let text = "use crate::{a::{b, c}, d, e::f};\nuse crate::g;\n";
    assert_eq!(crate_imports(text), ["a", "d", "e", "g"]);
}
