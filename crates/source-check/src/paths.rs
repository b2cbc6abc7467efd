//! Finds the paths in the tokens of Rust code: in `use` lines, expressions, types and the arguments of macros. Pure.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A path of at least two segments, for example `crate::cache::Stores`.
pub(crate) struct PathInSource {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// Appends the paths in `code` to `paths`. For example, the code `use a::{b, c}` has the paths `a::b` and `a::c`.
pub(crate) fn collect_paths(code: TokenStream, paths: &mut Vec<PathInSource>) {
    collect_paths_with_prefix(&[], code, paths);
}

/// Appends the paths in `code` to `paths`. Each path begins with `prefix`. In a `use` line with a group, `prefix` is
/// the path before the group.
fn collect_paths_with_prefix(prefix: &[String], code: TokenStream, paths: &mut Vec<PathInSource>) {
    let mut segments = prefix.to_vec();
    let mut line = 0;
    let mut is_the_word_as = false;
    let mut colon_count = if prefix.is_empty() { 0 } else { 2 };
    for token in code {
        let start = token.span().start().line;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colon_count += 1,
            TokenTree::Ident(ident) => {
                // In `a: b` and `a b`, `b` begins another path. In `a::b` the path continues.
                if colon_count != 2 {
                    finish_path(&mut segments, prefix, line, paths);
                }
                // In `use a as b` the words `as` and `b` are not part of the path.
                let is_alias = std::mem::replace(&mut is_the_word_as, ident == "as");
                if !is_alias && !is_the_word_as {
                    segments.push(ident.to_string());
                }
                (line, colon_count) = (start, 0);
            }
            TokenTree::Group(group) if colon_count == 2 && group.delimiter() == Delimiter::Brace => {
                collect_paths_with_prefix(&segments, group.stream(), paths);
                segments = prefix.to_vec();
                colon_count = 0;
            }
            TokenTree::Group(group) => {
                finish_path(&mut segments, prefix, line, paths);
                collect_paths_with_prefix(&[], group.stream(), paths);
                colon_count = 0;
            }
            // `use super::*`
            TokenTree::Punct(punct) if punct.as_char() == '*' && colon_count == 2 => {
                segments.push("*".to_owned());
                (line, colon_count) = (start, 0);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                finish_path(&mut segments, prefix, line, paths);
                colon_count = if prefix.is_empty() { 0 } else { 2 };
            }
        }
    }
    finish_path(&mut segments, prefix, line, paths);
}

/// Appends the current path to `paths`, and begins the next path with `prefix`.
fn finish_path(segments: &mut Vec<String>, prefix: &[String], line: usize, paths: &mut Vec<PathInSource>) {
    let path = std::mem::replace(segments, prefix.to_vec());
    if path.len() > prefix.len().max(1) {
        paths.push(PathInSource { segments: path, line });
    }
}
