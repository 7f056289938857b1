//! How a text is set out: what is added looks like its neighbours, what is removed takes along only what is about it.

use toml_edit::{Array, DocumentMut, Item, RawString, Table, Value};

/// Adds a value to an array, set out as the one before it.
pub(super) fn append(array: &mut Array, value: impl Into<Value>) {
    let (mut value, is_second) = (value.into(), array.len() == 1);
    if let Some(last) = array.iter_mut().last() {
        let text = |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or_default().to_owned();
        let (prefix, suffix) = (text(last.decor().prefix()), text(last.decor().suffix()));
        // Of a list in several lines, without the comments that belong to another.
        let prefix = prefix.rfind('\n').map_or(&*prefix, |line| &prefix[line..]);
        value.decor_mut().set_prefix(if is_second && !prefix.contains('\n') { " " } else { prefix });
        // The room before the bracket.
        if !suffix.contains('#') {
            last.decor_mut().set_suffix("");
            value.decor_mut().set_suffix(suffix);
        }
    }
    array.push_formatted(value);
}

/// Without the line ends of Windows.
pub(super) fn as_parsed(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// What the parser does not keep: the mark at the beginning and the line ends of Windows.
pub(super) fn as_written(before: &str, text: String) -> String {
    const MARK: char = '\u{feff}';
    let text = if before.contains("\r\n") { text.replace('\n', "\r\n") } else { text };
    if before.starts_with(MARK) && !text.starts_with(MARK) { format!("{MARK}{text}") } else { text }
}

/// Removes a value from an array. The comment of the line above it is not its own.
pub(super) fn remove_value(array: &mut Array, place: usize) {
    let gone = array.remove(place);
    let prefix = gone.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
    if place == array.len()
        && let (Some(suffix), Some(last)) = (gone.decor().suffix(), array.iter_mut().last())
        && last.decor().suffix().and_then(RawString::as_str).is_none_or(str::is_empty)
    {
        last.decor_mut().set_suffix(suffix.clone());
    }
    let Some(end) = prefix.rfind('\n').filter(|_| prefix.contains('#')) else { return };
    let comment = &prefix[..end];
    if let Some(next) = array.get_mut(place) {
        let prefix = next.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
        let prefix = format!("{comment}{prefix}");
        next.decor_mut().set_prefix(prefix);
    } else {
        let trailing = format!("{comment}\n{}", array.trailing().as_str().unwrap_or_default());
        array.set_trailing(trailing);
    }
}

/// Puts what stood before a table that is gone and was not about it before the table that follows in the text, or at the end: all but
/// the comment right above it. Before the first table, nobody knows what it is about.
pub(super) fn put_back(document: &mut DocumentMut, spare: Option<(isize, String)>) {
    let Some((position, prefix)) = spare else { return };
    let (mut next, mut is_first) = (isize::MAX, true);
    each_table(document.as_table_mut(), &mut |table| match table.position() {
        Some(other) if other > position => next = next.min(other),
        Some(_) => is_first = false,
        None => {}
    });
    let text = if is_first { &*prefix } else { prefix.rfind("\n\n").map_or("", |end| &prefix[..=end]) };
    if text.is_empty() {
        return;
    }
    let mut is_put = false;
    each_table(document.as_table_mut(), &mut |table| {
        if table.position() == Some(next) && !is_put {
            let prefix = table.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
            let prefix = format!("{text}{prefix}");
            table.decor_mut().set_prefix(prefix);
            is_put = true;
        }
    });
    if !is_put {
        let trailing = format!("{text}{}", document.trailing().as_str().unwrap_or_default());
        document.set_trailing(trailing);
    }
}

/// Calls `visit` for every table that has a line of its own.
fn each_table(table: &mut Table, visit: &mut impl FnMut(&mut Table)) {
    for (_, item) in table.iter_mut() {
        match item {
            Item::Table(within) => {
                visit(within);
                each_table(within, visit);
            }
            Item::ArrayOfTables(tables) => {
                for within in tables.iter_mut() {
                    visit(within);
                    each_table(within, visit);
                }
            }
            _ => {}
        }
    }
}
