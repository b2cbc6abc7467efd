//! Finds the paths in Rust code, by its tokens: in `use` lines, expressions, types and the arguments of macros. Pure.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of at least two segments, for example `crate::cache::Stores`.
pub(crate) struct PathInSource {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// Appends the paths in the code. `use a::{b, c}` gives `a::b` and `a::c`.
pub(crate) fn collect_paths(code: TokenStream, paths: &mut Vec<PathInSource>) {
    collect_below(&[], code, paths);
}

/// Appends the paths in the code, each after the prefix of the `use` group that contains the code.
fn collect_below(prefix: &[String], code: TokenStream, paths: &mut Vec<PathInSource>) {
    let mut segments = prefix.to_vec();
    let mut line = 0;
    let mut is_alias = false;
    let mut colons = if prefix.is_empty() { 0 } else { 2 };
    for token in code {
        let start = token.span().start().line;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                // `a: b` and `a b` begin another path; `a::b` goes on.
                if colons != 2 {
                    finish(&mut segments, prefix, line, paths);
                }
                // In `use a as b` neither `as` nor `b` belongs to a path.
                let after_as = std::mem::replace(&mut is_alias, ident == "as");
                if !after_as && !is_alias {
                    segments.push(ident.to_string());
                }
                (line, colons) = (start, 0);
            }
            TokenTree::Group(group) if colons == 2 && group.delimiter() == Delimiter::Brace => {
                collect_below(&segments, group.stream(), paths);
                segments = prefix.to_vec();
                colons = 0;
            }
            TokenTree::Group(group) => {
                finish(&mut segments, prefix, line, paths);
                collect_below(&[], group.stream(), paths);
                colons = 0;
            }
            // `use super::*`
            TokenTree::Punct(punct) if punct.as_char() == '*' && colons == 2 => {
                segments.push("*".to_owned());
                (line, colons) = (start, 0);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                finish(&mut segments, prefix, line, paths);
                colons = if prefix.is_empty() { 0 } else { 2 };
            }
        }
    }
    finish(&mut segments, prefix, line, paths);
}

/// Ends the path that is being read, and begins the next one after the prefix.
fn finish(segments: &mut Vec<String>, prefix: &[String], line: usize, paths: &mut Vec<PathInSource>) {
    let path = std::mem::replace(segments, prefix.to_vec());
    if path.len() > prefix.len().max(1) {
        paths.push(PathInSource { segments: path, line });
    }
}
