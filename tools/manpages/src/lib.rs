//! The manual pages, made from `tunables.md` and from the texts in `pages/`.
//!
//! A page is Markdown. A line `{{HEADING}}` in it stands for what `tunables.md` says below that heading, up to the next heading of the same
//! rank or a higher one, so that a fact is written down once. Tables become lists: what is in the first column is the item, what is below
//! "meaning" its text, and every other column a sentence with the column's heading.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use roff::{bold, italic, roman, Inline, Roff};
use std::fs;
use std::path::Path;

/// A manual page.
pub struct Page {
    /// Its name in `man/`.
    pub file: &'static str,
    /// Its source for troff.
    pub text: String,
}

/// What goes into the header of each page.
const PAGES: [(&str, &str, &str, &str); 2] =
    [("ld-seal.so.8", "ld\\-seal.so", "8", "ld-seal.so.md"), ("ldseal.1", "ldseal", "1", "ldseal.md")];

/// When the pages last changed in substance.
const DATE: &str = "2026-11-21";

/// The pages of the repository at `root`.
///
/// # Errors
/// A file can't be read, or a heading is not there.
pub fn pages(root: &Path) -> Result<Vec<Page>, String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).map_err(|e| format!("{path}: {e}"));
    let facts = read("tunables.md")?;
    let page = |&(file, title, section, source): &(&'static str, &str, &str, &str)| {
        let text = include(&read(&format!("tools/manpages/pages/{source}"))?, &facts)?;
        let mut roff = Roff::new();
        roff.control("TH", [title, section, DATE, concat!("ldseal ", env!("CARGO_PKG_VERSION"))]);
        Writer { roff, ..Writer::default() }.write(&text).map(|text| Page { file, text })
    };
    PAGES.iter().map(page).collect()
}

/// Puts the parts of `facts` where `page` asks for them.
fn include(page: &str, facts: &str) -> Result<String, String> {
    let mut text = String::new();
    for line in page.lines() {
        match line.strip_prefix("{{").and_then(|line| line.strip_suffix("}}")) {
            Some(heading) => text += &section(facts, heading)?,
            None => text += line,
        }
        text.push('\n');
    }
    Ok(text)
}

/// What stands below a heading.
fn section(facts: &str, heading: &str) -> Result<String, String> {
    let rank = |line: &str| line.bytes().take_while(|&b| b == b'#').count();
    let mut lines = facts.lines().skip_while(|line| rank(line) == 0 || line.trim_start_matches('#').trim() != heading);
    let own = rank(lines.next().ok_or_else(|| format!("tunables.md has no heading {heading:?}"))?);
    let below: Vec<&str> = lines.take_while(|line| rank(line) == 0 || rank(line) > own).collect();
    Ok(below.join("\n"))
}

/// From Markdown to troff.
#[derive(Default)]
struct Writer {
    roff: Roff,
    line: Vec<Inline>,
    strong: bool,
    emphasis: bool,
    table: Option<Table>,
    item: bool,
    /// Whether a heading was the last thing written: a paragraph needs no request then.
    headed: bool,
}

/// A table that is being read.
#[derive(Default)]
struct Table {
    head: Vec<String>,
    row: Vec<Vec<Inline>>,
    in_head: bool,
}

impl Writer {
    fn write(mut self, markdown: &str) -> Result<String, String> {
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            self.event(event)?;
        }
        Ok(self.roff.render())
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(tag) => self.start(&tag)?,
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.strong => self.put(bold(text.to_string())),
            Event::Text(text) if self.emphasis => self.put(italic(text.to_string())),
            Event::Text(text) => self.put(roman(text.to_string())),
            Event::Code(code) => self.put(bold(code.to_string())),
            Event::SoftBreak => self.put(roman(" ")),
            other => return Err(format!("{other:?} has no form in a manual page")),
        }
        Ok(())
    }

    fn put(&mut self, inline: Inline) {
        match self.table.as_mut().and_then(|table| table.row.last_mut()) {
            Some(cell) => cell.push(inline),
            None => self.line.push(inline),
        }
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
    }

    fn start(&mut self, tag: &Tag<'_>) -> Result<(), String> {
        match tag {
            Tag::Heading { .. } | Tag::TableCell if self.table.is_none() => {}
            Tag::Paragraph if self.item => {}
            Tag::Paragraph => self.paragraph(),
            Tag::List(_) => {}
            Tag::Item => {
                self.flush();
                self.headed = false;
                self.roff.control("IP", ["\\(bu", "2"]);
                self.item = true;
            }
            Tag::CodeBlock(_) => {
                self.paragraph();
                self.roff.control("nf", []);
            }
            Tag::Strong => self.strong = true,
            Tag::Emphasis => self.emphasis = true,
            Tag::Link { .. } => {}
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::TableHead => self.table.iter_mut().for_each(|table| table.in_head = true),
            Tag::TableRow => self.table.iter_mut().for_each(|table| table.row.clear()),
            Tag::TableCell => self.table.iter_mut().for_each(|table| table.row.push(Vec::new())),
            other => return Err(format!("{other:?} has no form in a manual page")),
        }
        Ok(())
    }

    fn paragraph(&mut self) {
        if !std::mem::take(&mut self.headed) {
            self.roff.control("PP", []);
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let title = plain(&std::mem::take(&mut self.line));
                let (name, title) =
                    if level == HeadingLevel::H1 { ("SH", title.to_uppercase()) } else { ("SS", title) };
                self.roff.control(name, [title.replace('-', "\\-").as_str()]);
                self.headed = true;
            }
            TagEnd::Paragraph => self.flush(),
            TagEnd::Item => {
                self.flush();
                self.item = false;
            }
            TagEnd::CodeBlock => {
                let text = plain(&std::mem::take(&mut self.line));
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
                self.roff.control("fi", []);
            }
            TagEnd::Strong => self.strong = false,
            TagEnd::Emphasis => self.emphasis = false,
            TagEnd::TableHead => {
                if let Some(table) = &mut self.table {
                    table.head = table.row.drain(..).map(|cell| plain(&cell)).collect();
                    table.in_head = false;
                }
            }
            TagEnd::TableRow => self.row(),
            TagEnd::Table => self.table = None,
            _ => {}
        }
    }

    /// A row of a table becomes an item of a list.
    fn row(&mut self) {
        let Some(table) = &mut self.table else { return };
        let row = std::mem::take(&mut table.row);
        let mut term: Vec<Inline> = Vec::new();
        let (mut meaning, mut rest): (Vec<Inline>, Vec<Inline>) = (Vec::new(), Vec::new());
        for (index, (name, cell)) in table.head.iter().zip(row).enumerate() {
            let is_text = ["meaning", "what it does", "shows"].contains(&name.as_str()) || name.is_empty();
            if cell.is_empty() {
                continue;
            } else if index == 0 || ["value", "option"].contains(&name.as_str()) {
                if !term.is_empty() {
                    term.push(roman(" "));
                }
                let is_value = name == "value";
                term.extend(cell.into_iter().map(|part| if is_value { as_value(part) } else { part }));
            } else if is_text {
                meaning.extend(cell);
            } else {
                rest.push(roman(format!(" {}: ", capitalised(name))));
                rest.extend(cell);
                rest.push(roman("."));
            }
        }
        self.headed = false;
        self.roff.control("TP", []);
        self.roff.text(term);
        if !rest.is_empty() && !meaning.is_empty() {
            meaning.push(roman("."));
        }
        meaning.extend(rest);
        if !meaning.is_empty() {
            self.roff.text(meaning);
        }
    }
}

fn as_value(part: Inline) -> Inline {
    match part {
        Inline::Roman(text) => italic(text),
        other => other,
    }
}

fn plain(line: &[Inline]) -> String {
    let text = |inline: &Inline| match inline {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text.clone(),
        Inline::LineBreak => " ".to_owned(),
    };
    line.iter().map(text).collect()
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str =
        "# Page\n\n## One\n\nText `code`.\n\n| option | value | meaning | in secure mode |\n|---|---|---|---|\n\
                         | `--x` | number | does *it* | ignored |\n\n### Below\n\n.dot\n\n## Two\n\nMore.\n";

    fn written(page: &str) -> String {
        let text = include(page, FACTS).expect("headings are there");
        Writer::default().write(&text).expect("it has a form")
    }

    #[test]
    fn a_section_ends_at_the_next_of_its_rank() {
        let text = include("# NAME\n{{One}}\n", FACTS).expect("the heading is there");
        assert!(text.contains("### Below") && !text.contains("More."), "{text}");
        assert!(include("{{Three}}", FACTS).is_err());
    }

    #[test]
    fn tables_become_lists_and_dots_are_no_requests() {
        let page = written("# OPTIONS\n{{One}}\n");
        assert!(page.contains(".SH OPTIONS\n"), "{page}");
        assert!(page.contains(".TP\n\\fB\\-\\-x\\fR \\fInumber\\fR\n"), "{page}");
        assert!(page.contains("does \\fIit\\fR. In secure mode: ignored.\n"), "{page}");
        assert!(page.contains(".SS Below\n") && page.contains("\\&.dot"), "{page}");
    }
}
