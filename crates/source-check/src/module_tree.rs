//! Reads the files of one crate from its root, without test code, and resolves the paths in them to files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::Item;

use crate::circles::Reference;
use crate::paths::{PathInSource, collect_paths};

/// A module: its file, and the paths in its code. An inline module has the file of its parent.
struct Module {
    file: PathBuf,
    paths: Vec<PathInSource>,
}

/// The modules of a crate by their path: `[]` is the root, `["cache", "stores"]` is `crate::cache::stores`.
type Modules = BTreeMap<Vec<String>, Module>;

/// Returns the references between the files of the crate with this root file.
pub(crate) fn references(root: &Path) -> io::Result<Vec<Reference>> {
    let mut modules = Modules::new();
    let children = root.parent().unwrap_or(root);
    read_file(&mut modules, Vec::new(), root, children)?;
    let mut references = Vec::new();
    for (name, module) in &modules {
        for path in &module.paths {
            let Some(target) = resolve(&modules, name, &path.segments) else { continue };
            if target.file != module.file {
                references.push(Reference {
                    from: module.file.clone(),
                    line: path.line,
                    path: path.segments.join("::"),
                    to: target.file.clone(),
                });
            }
        }
    }
    Ok(references)
}

/// Reads a file as the module with this name. Files of its child modules are in the directory `children`.
fn read_file(modules: &mut Modules, name: Vec<String>, file: &Path, children: &Path) -> io::Result<()> {
    let source = fs::read_to_string(file)?;
    let syntax = syn::parse_file(&source).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
    })?;
    read_items(modules, name, file, children, syntax.items)
}

fn read_items(
    modules: &mut Modules,
    name: Vec<String>,
    file: &Path,
    children: &Path,
    items: Vec<Item>,
) -> io::Result<()> {
    let mut paths = Vec::new();
    for item in items {
        if is_test(&item) {
            continue;
        }
        let Item::Mod(module) = item else {
            collect_paths(code_of(item), &mut paths);
            continue;
        };
        let child = module.ident.to_string();
        let child_name: Vec<_> = name.iter().cloned().chain([child.clone()]).collect();
        let directory = children.join(&child);
        if let Some((_, items)) = module.content {
            read_items(modules, child_name, file, &directory, items)?;
        } else {
            let flat = children.join(format!("{child}.rs"));
            let child_file = if flat.is_file() { flat } else { directory.join("mod.rs") };
            read_file(modules, child_name, &child_file, &directory)?;
        }
    }
    modules.insert(name, Module { file: file.to_owned(), paths });
    Ok(())
}

/// Returns the item's code, without functions of an `impl` that exist in tests only.
fn code_of(mut item: Item) -> TokenStream {
    if let Item::Impl(block) = &mut item {
        block.items.retain(|member| !is_test(member));
    }
    item.into_token_stream()
}

/// Returns whether one of the item's attributes is `#[cfg(test)]` or `#[test]`.
fn is_test(item: &impl ToTokens) -> bool {
    let mut tokens = item.to_token_stream().into_iter();
    while let (Some(TokenTree::Punct(hash)), Some(TokenTree::Group(attribute))) =
        (tokens.next(), tokens.next())
    {
        let attribute = attribute.stream().to_string().replace(' ', "");
        if hash.as_char() == '#' && (attribute == "cfg(test)" || attribute == "test") {
            return true;
        }
    }
    false
}

/// Returns the deepest module that the path names, as seen from a module; `None` if it is of another crate.
fn resolve<'a>(modules: &'a Modules, from: &[String], segments: &[String]) -> Option<&'a Module> {
    let mut name = from.to_vec();
    for (index, segment) in segments.iter().enumerate() {
        match segment.as_str() {
            "crate" => name.clear(),
            "self" => (),
            "super" => drop(name.pop()),
            child => {
                name.push(child.to_owned());
                if !modules.contains_key(&name) {
                    name.pop();
                    if index == 0 {
                        return None;
                    }
                    break;
                }
            }
        }
    }
    modules.get(&name)
}
