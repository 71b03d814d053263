//! Which objects a process has loaded, found from its mappings and the files behind them.
//!
//! Memory without a file (RELRO of a sealing loader, bss, gaps) belongs to an object when it lies inside the object's image.

use super::image::Image;
use super::model::Kind;
use super::smaps::Mapping;
use std::ops::Range;
use std::rc::Rc;

/// An object at its place.
#[derive(Debug, Clone)]
pub struct Object {
    /// The file's path, as the kernel shows it.
    pub path: String,
    /// What was added to the file's addresses.
    pub bias: u64,
    /// What the file says.
    pub image: Rc<Image>,
}

impl Object {
    /// The addresses from the first to the last page.
    pub fn span(&self) -> Range<u64> {
        let span = self.image.span().unwrap_or_default();
        self.bias.wrapping_add(span.start)..self.bias.wrapping_add(span.end)
    }

    /// What the page at an address is for.
    pub fn part(&self, address: u64) -> Kind {
        self.image.part(address.wrapping_sub(self.bias))
    }

    /// The name that a DT_NEEDED entry would find it by: its soname, else its file name.
    pub fn name(&self) -> &str {
        self.image.soname.as_deref().unwrap_or_else(|| file_name(&self.path))
    }

    /// Cuts a range, which must lie inside, where one part ends and another begins.
    pub fn cut(&self, range: Range<u64>) -> Vec<(Range<u64>, Kind)> {
        let boundaries = self.image.boundaries().into_iter().map(|at| at.wrapping_add(self.bias));
        let mut cuts: Vec<u64> = boundaries.filter(|at| range.start < *at && *at < range.end).collect();
        cuts.insert(0, range.start);
        cuts.push(range.end);
        let mut pieces: Vec<(Range<u64>, Kind)> = Vec::new();
        for pair in cuts.windows(2) {
            let part = self.part(pair[0]);
            match pieces.last_mut() {
                Some((last, same)) if *same == part => last.end = pair[1],
                _ => pieces.push((pair[0]..pair[1], part)),
            }
        }
        pieces
    }
}

/// The last component of a path, without the mark of a deleted file.
pub fn file_name(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Finds the objects among the mappings. `image` reads the file behind a mapping.
///
/// A mapping of a file proposes a place for the file's image, from its offset; the place is taken when every executable
/// PT_LOAD is there. A file that is only read through a mapping thus makes no object.
pub fn find(mappings: &[Mapping], mut image: impl FnMut(&Mapping) -> Option<Rc<Image>>) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.name.starts_with('/')) {
        if objects.iter().any(|object| object.path == mapping.name && object.span().contains(&mapping.range.start)) {
            continue;
        }
        let Some(image) = image(mapping) else { continue };
        for load in image.loads.iter().filter(|load| load.offset == mapping.offset) {
            let bias = mapping.range.start.wrapping_sub(load.pages.start);
            let object = Object { path: mapping.name.clone(), bias, image: Rc::clone(&image) };
            if is_loaded(&object, mappings) {
                objects.push(object);
                break;
            }
        }
    }
    objects.sort_by_key(|object| object.span().start);
    objects
}

fn is_loaded(object: &Object, mappings: &[Mapping]) -> bool {
    let mut text = object.image.loads.iter().filter(|load| load.execute).peekable();
    let span = object.span();
    if text.peek().is_none() || span.start >= span.end {
        return false;
    }
    text.all(|load| {
        let start = object.bias.wrapping_add(load.pages.start);
        mappings.iter().any(|mapping| {
            let here = mapping.range.contains(&start) && mapping.permissions.execute;
            let offset = mapping.offset.wrapping_add(start.wrapping_sub(mapping.range.start));
            // Text that needs relocation can be in anonymous memory.
            here && (mapping.inode == 0 || mapping.name == object.path && offset == load.offset)
        })
    })
}

/// The pages of a range that belong to `object`.
pub fn inside(range: &Range<u64>, object: &Object) -> Option<Range<u64>> {
    let span = object.span();
    let (start, end) = (range.start.max(span.start), range.end.min(span.end));
    (start < end).then_some(start..end)
}

/// Marks the objects that the start of a program loads: those that `roots` name, and whatever DT_NEEDED reaches from them.
pub fn closure(objects: &[Object], roots: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut reached = vec![false; objects.len()];
    let mut pending: Vec<usize> = roots.into_iter().collect();
    while let Some(index) = pending.pop() {
        if std::mem::replace(&mut reached[index], true) {
            continue;
        }
        for needed in &objects[index].image.needed {
            let found = objects
                .iter()
                .position(|object| object.name() == needed || file_name(&object.path) == file_name(needed));
            pending.extend(found);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::super::image::Load;
    use super::super::smaps;
    use super::*;

    fn library(soname: &str, needed: &[&str]) -> Rc<Image> {
        let load =
            |pages: Range<u64>, file_end, offset, write, execute| Load { pages, file_end, offset, write, execute };
        Rc::new(Image {
            loads: vec![
                load(0..0x1000, 0x1000, 0, false, false),
                load(0x1000..0x2000, 0x2000, 0x1000, false, true),
                load(0x3000..0x6000, 0x5000, 0x2000, true, false),
            ],
            relro: 0x3000..0x4000,
            soname: Some(soname.into()),
            needed: needed.iter().map(|name| name.to_string()).collect(),
            ..Image::default()
        })
    }

    const MAPPINGS: &str = "\
10000-11000 r--p 00000000 00:00 7  /lib/a.so
11000-12000 r-xp 00001000 00:00 7  /lib/a.so
12000-13000 ---p 00000000 00:00 0  
13000-14000 r--p 00000000 00:00 0  
14000-15000 rw-p 00003000 00:00 7  /lib/a.so
15000-18000 rw-p 00000000 00:00 0  
20000-23000 r--p 00000000 00:00 7  /lib/a.so
30000-31000 r--p 00000000 00:00 8  /lib/b.so
31000-32000 r-xp 00001000 00:00 8  /lib/b.so
40000-41000 r--p 00000000 00:00 7  /lib/a.so
41000-42000 r-xp 00001000 00:00 7  /lib/a.so
";

    fn found() -> (Vec<Mapping>, Vec<Object>) {
        let mappings = smaps::parse(MAPPINGS).expect("well-formed");
        let objects = find(&mappings, |mapping| {
            let needed: &[&str] = if mapping.inode == 8 { &["liba", "libother"] } else { &[] };
            Some(library(if mapping.inode == 8 { "libb" } else { "liba" }, needed))
        });
        (mappings, objects)
    }

    #[test]
    fn an_object_is_where_its_text_is() {
        let (_, objects) = found();
        let places: Vec<_> = objects.iter().map(|object| (object.name(), object.bias)).collect();
        assert_eq!(places, [("liba", 0x10000), ("libb", 0x30000), ("liba", 0x40000)]);
        assert_eq!(objects[0].span(), 0x10000..0x16000);
    }

    #[test]
    fn anonymous_memory_inside_belongs_to_the_object() {
        let (mappings, objects) = found();
        let pieces: Vec<_> =
            mappings.iter().filter_map(|m| inside(&m.range, &objects[0])).flat_map(|r| objects[0].cut(r)).collect();
        use Kind::*;
        let expected = [
            (0x10000..0x11000, Rodata),
            (0x11000..0x12000, Text),
            (0x12000..0x13000, Gap),
            (0x13000..0x14000, Relro),
            (0x14000..0x15000, Data),
            (0x15000..0x16000, Bss),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(objects[0].cut(0x10000..0x16000), expected);
    }

    #[test]
    fn the_closure_follows_needed_names() {
        let (_, objects) = found();
        assert_eq!(closure(&objects, [1]), [true, true, false]);
        assert_eq!(closure(&objects, [2]), [false, false, true]);
        assert_eq!(closure(&objects, []), [false, false, false]);
    }

    #[test]
    fn deleted_files_keep_their_name() {
        assert_eq!(file_name("/memfd:ld-seal.so (deleted)"), "memfd:ld-seal.so");
        assert_eq!(file_name("/lib/a.so"), "a.so");
    }
}
