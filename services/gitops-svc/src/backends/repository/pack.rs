//! Objects that are made for one push, and written to the mirror as one pack.
//!
//! Each change makes a blob, some trees and a commit. As separate files they would cost more time than everything else
//! that is done for a change; in a pack, a tree that differs from the previous one by one id takes a few bytes.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::Path,
    rc::Rc,
    sync::atomic::AtomicBool,
};

use flate2::{Compression, write::ZlibEncoder};
use gix::{
    ObjectId,
    objs::{Kind, compute_hash, find::Never},
    odb::pack::{Bundle, bundle, data},
};

use super::error::{MirrorError, broken, unwritten};

/// The maximum length of a chain of differences before an object is stored in full, since a reader of the last one has
/// to read all of them. git's own limit.
const MAX_CHAIN: usize = 50;
/// The maximum that one instruction of a difference copies: its length has three bytes.
const MAX_COPY: usize = 0x00ff_ffff;
/// The maximum that one instruction adds.
const MAX_ADD: usize = 0x7f;

#[derive(Debug)]
struct Object {
    id: ObjectId,
    kind: Kind,
    data: Rc<Vec<u8>>,
    /// The index of a similar object.
    base: Option<usize>,
    chain: usize,
}

/// Objects that are not in the mirror yet.
#[derive(Debug, Default)]
pub(super) struct Pack {
    objects: Vec<Object>,
    numbers: HashMap<ObjectId, usize>,
}

impl Pack {
    /// Adds an object. `like` is one that it may be stored as a difference from, if that is in this pack too.
    pub(super) fn add(
        &mut self,
        hash: gix::hash::Kind,
        kind: Kind,
        data: Rc<Vec<u8>>,
        like: Option<ObjectId>,
    ) -> Result<ObjectId, MirrorError> {
        let id = compute_hash(hash, kind, &data).map_err(broken)?;
        if self.numbers.contains_key(&id) {
            return Ok(id);
        }
        let base = like
            .and_then(|id| self.numbers.get(&id).copied())
            .filter(|base| self.objects[*base].kind == kind && self.objects[*base].chain < MAX_CHAIN);
        self.numbers.insert(id, self.objects.len());
        self.objects.push(Object {
            id,
            kind,
            data,
            base,
            chain: base.map_or(0, |base| self.objects[base].chain + 1),
        });
        Ok(id)
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<&Rc<Vec<u8>>> {
        self.numbers.get(id).map(|number| &self.objects[*number].data)
    }

    /// Writes all of them into a folder of packs.
    pub(super) fn write(&self, hash: gix::hash::Kind, folder: &Path) -> Result<(), MirrorError> {
        if self.objects.is_empty() {
            return Ok(());
        }
        let entries = (self.objects.iter())
            .map(|object| self.entry(object))
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken)?;
        let entries = entries.into_iter().map(|entry| Ok(vec![entry]));
        let number = u32::try_from(self.objects.len()).map_err(broken)?;
        let mut pack = Vec::new();
        for written in
            data::output::bytes::FromEntriesIter::new(entries, &mut pack, number, data::Version::V2, hash)
        {
            written.map_err(broken)?;
        }
        std::fs::create_dir_all(folder).map_err(unwritten)?;
        let options = bundle::write::Options {
            // They are small; threads would cost more than they save.
            thread_limit: Some(1),
            iteration_mode: data::input::Mode::AsIs,
            ..bundle::write::Options::default()
        };
        let written = Bundle::write_to_directory(
            &mut pack.as_slice(),
            Some(folder),
            &mut gix::progress::Discard,
            &AtomicBool::new(false),
            None::<Never>,
            hash,
            options,
        )
        .map_err(|error| unwritten(io::Error::other(error)))?;
        // Other programs protect what they fetch until it is referenced; our push references it at once.
        if let Some(keep) = written.keep_path {
            std::fs::remove_file(keep).map_err(unwritten)?;
        }
        Ok(())
    }

    fn entry(&self, object: &Object) -> Result<data::output::Entry, io::Error> {
        let (kind, text) = match object.base {
            Some(base) => (
                data::output::entry::Kind::DeltaRef { object_index: base },
                difference(&self.objects[base].data, &object.data),
            ),
            None => (
                data::output::entry::Kind::Base(object.kind),
                object.data.as_ref().clone(),
            ),
        };
        let mut compressed = ZlibEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(&text)?;
        Ok(data::output::Entry {
            id: object.id,
            kind,
            decompressed_size: text.len(),
            compressed_data: compressed.finish()?,
        })
    }
}

/// The difference between two texts in git's form (gitformat-pack): the common beginning and end are copied, what is in
/// between is added.
fn difference(base: &[u8], text: &[u8]) -> Vec<u8> {
    let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
    let first = base.iter().zip(text).take_while(same).count();
    let rest = base.len().min(text.len()) - first;
    let last = (base.iter().rev().zip(text.iter().rev()).take(rest))
        .take_while(same)
        .count();
    let mut difference = Vec::with_capacity(64);
    size(&mut difference, base.len());
    size(&mut difference, text.len());
    copy(&mut difference, 0, first);
    for add in text[first..text.len() - last].chunks(MAX_ADD) {
        difference.push(add.len() as u8);
        difference.extend_from_slice(add);
    }
    copy(&mut difference, base.len() - last, last);
    difference
}

/// Seven bits per byte, the lowest first; all but the last byte have the eighth bit set.
fn size(difference: &mut Vec<u8>, mut size: usize) {
    while size > 0x7f {
        difference.push(size as u8 | 0x80);
        size >>= 7;
    }
    difference.push(size as u8);
}

/// Instructions whose first byte says which bytes of offset and length follow; zeros are omitted.
fn copy(difference: &mut Vec<u8>, mut from: usize, mut length: usize) {
    while length > 0 {
        let now = length.min(MAX_COPY);
        let at = difference.len();
        difference.push(0x80);
        for (bit, byte) in [from, from >> 8, from >> 16, from >> 24, now, now >> 8, now >> 16]
            .into_iter()
            .enumerate()
        {
            if byte as u8 != 0 {
                difference[at] |= 1 << bit;
                difference.push(byte as u8);
            }
        }
        from += now;
        length -= now;
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use gix::objs::Kind;
    use proptest::prelude::*;

    use super::{Pack, difference};

    /// Reads a difference as specified by gitformat-pack.
    fn apply(base: &[u8], difference: &[u8]) -> Vec<u8> {
        let mut bytes = difference.iter().copied();
        let mut next = || bytes.next().unwrap();
        let mut size = || {
            let (mut size, mut shift) = (0, 0);
            loop {
                let byte = next();
                size |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return size;
                }
            }
        };
        assert_eq!(size(), base.len());
        let wanted = size();
        let mut text = Vec::new();
        while text.len() < wanted {
            let first = bytes.next().unwrap();
            if first & 0x80 == 0 {
                text.extend(bytes.by_ref().take(usize::from(first)));
                continue;
            }
            let mut number = |bits: std::ops::Range<u8>| {
                bits.clone()
                    .filter(|bit| first & (1 << bit) != 0)
                    .map(|bit| usize::from(bytes.next().unwrap()) << (8 * (bit - bits.start)))
                    .sum::<usize>()
            };
            let (from, length) = (number(0..4), number(4..7));
            text.extend_from_slice(&base[from..from + length]);
        }
        assert_eq!(bytes.next(), None);
        text
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_text(
            base in proptest::collection::vec(0_u8..4, 0..700),
            middle in proptest::collection::vec(any::<u8>(), 0..400),
            from in 0_usize..700,
            to in 0_usize..700,
        ) {
            let (from, to) = (from.min(base.len()), to.min(base.len()));
            let text = [&base[..from], &middle, &base[to..]].concat();
            prop_assert_eq!(apply(&base, &difference(&base, &text)), text);
        }
    }

    #[test]
    fn long_copies_are_several() {
        let base: Vec<u8> = (0_u32..9_000_000)
            .flat_map(|n| [(n >> 8) as u8, n as u8])
            .collect();
        let mut text = base.clone();
        text[17_000_000] ^= 1;
        assert_eq!(apply(&base, &difference(&base, &text)), text);
        assert!(difference(&base, &text).len() < 64);
    }

    #[test]
    fn git_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let repository = gix::init_bare(folder.path()).unwrap();
        let hash = repository.object_hash();
        let mut pack = Pack::default();
        let mut last = None;
        let mut ids = Vec::new();
        for number in 0..120 {
            let text = format!("{}{number}{}", "a".repeat(300), "b".repeat(300)).into_bytes();
            let id = pack.add(hash, Kind::Blob, Rc::new(text.clone()), last).unwrap();
            assert_eq!(pack.get(&id).unwrap().as_slice(), text);
            ids.push((id, text));
            last = Some(id);
        }
        pack.write(hash, &folder.path().join("objects/pack")).unwrap();
        for (id, text) in ids {
            assert_eq!(repository.find_object(id).unwrap().data, text);
        }
        let fsck = std::process::Command::new("git")
            .arg("--git-dir")
            .arg(folder.path())
            .args(["fsck", "--strict", "--full"])
            .output()
            .unwrap();
        assert!(fsck.status.success(), "{fsck:?}");
    }
}
