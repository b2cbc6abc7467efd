//! Reads the files of one crate, except test code. Finds the file that each path in the code refers to.

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

/// The modules of a crate, keyed by their path: `[]` is the root, `["cache", "stores"]` is `crate::cache::stores`.
type Modules = BTreeMap<Vec<String>, Module>;

/// Returns the references between the files of a crate; `root` is the root file of the crate.
pub(crate) fn find_references(root: &Path) -> io::Result<Vec<Reference>> {
    let mut modules = Modules::new();
    let child_directory = root.parent().unwrap_or(root);
    read_file(&mut modules, Vec::new(), root, child_directory)?;
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

/// Reads the file of the module `name`. The directory `child_directory` contains the files of the child modules.
fn read_file(
    modules: &mut Modules,
    name: Vec<String>,
    file: &Path,
    child_directory: &Path,
) -> io::Result<()> {
    let source = fs::read_to_string(file)?;
    let syntax_tree = syn::parse_file(&source).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
    })?;
    read_items(modules, name, file, child_directory, syntax_tree.items)
}

fn read_items(
    modules: &mut Modules,
    name: Vec<String>,
    file: &Path,
    child_directory: &Path,
    items: Vec<Item>,
) -> io::Result<()> {
    let mut paths = Vec::new();
    for item in items {
        if is_test(&item) {
            continue;
        }
        let Item::Mod(module) = item else {
            collect_paths(code_without_tests(item), &mut paths);
            continue;
        };
        let child = module.ident.to_string();
        let child_name: Vec<_> = name.iter().cloned().chain([child.clone()]).collect();
        let directory = child_directory.join(&child);
        if let Some((_, items)) = module.content {
            read_items(modules, child_name, file, &directory, items)?;
        } else if let Some(path) = path_attribute(&module.attrs) {
            let child_file = file.with_file_name(path);
            let directory = child_file.parent().unwrap_or(child_directory).to_owned();
            read_file(modules, child_name, &child_file, &directory)?;
        } else {
            let flat_file = child_directory.join(format!("{child}.rs"));
            let child_file = if flat_file.is_file() { flat_file } else { directory.join("mod.rs") };
            read_file(modules, child_name, &child_file, &directory)?;
        }
    }
    modules.insert(name, Module { file: file.to_owned(), paths });
    Ok(())
}

/// Returns the value of the attribute `#[path = "FILE"]`.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("path")).find_map(|attribute| {
        match &attribute.meta.require_name_value().ok()?.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(file), .. }) => Some(file.value()),
            _ => None,
        }
    })
}

/// Returns the item's code. If the item is an `impl` block, omits functions that are only for tests.
fn code_without_tests(mut item: Item) -> TokenStream {
    if let Item::Impl(block) = &mut item {
        block.items.retain(|member| !is_test(member));
    }
    item.into_token_stream()
}

/// Returns true if one of the item's attributes is `#[cfg(test)]` or `#[test]`.
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

/// Resolves a path in the code of the module `from`. Returns the deepest module of the path, or `None` if the path
/// belongs to another crate.
fn resolve<'a>(modules: &'a Modules, from: &[String], segments: &[String]) -> Option<&'a Module> {
    if let Some(name) = resolve_name(modules, from, segments) {
        return modules.get(&name);
    }
    // The first segment may be a module that a glob import brings into scope, for example with `use super::*`.
    let glob_imports =
        modules.get(from)?.paths.iter().filter_map(|path| path.segments.strip_suffix(&["*".to_owned()]));
    let imported_modules = glob_imports.filter_map(|glob_import| resolve_name(modules, from, glob_import));
    imported_modules
        .filter_map(|module| resolve_name(modules, &module, segments))
        .find_map(|name| modules.get(&name))
}

fn resolve_name(modules: &Modules, from: &[String], segments: &[String]) -> Option<Vec<String>> {
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
    Some(name)
}
