//! The file of an object: its content, then what describes it, then how long that is. One file, so one rename makes
//! both show together.
//!
//! ```text
//! content · {"name":…,"contentType":…,"sha256":…,"modifiedMs":…} · its length, u32 little-endian · "exprsnb1"
//! ```

use crate::blob::{
    backend::Info,
    name::{ObjectName, hex},
};
use aws_lc_rs::digest;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt as _};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, os::unix::fs::FileExt as _};

const MAGIC: &[u8; 8] = b"exprsnb1";
/// The length and the magic number.
const TAIL_BYTES: u64 = 12;
/// Longest description that is read, in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

/// What a file says of its object.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    name: String,
    content_type: String,
    sha256: String,
    modified_ms: i64,
}

/// Opens a regular file to be read; a symbolic link or anything else is an error, and nothing waits for a pipe's writer.
pub fn open(folder: &Dir, file_name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No);
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = folder.open_with(file_name, &options)?.into_std();
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(damaged("it is no regular file"))
}

/// Creates a file that is not there.
pub fn create(folder: &Dir, file_name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    Ok(folder.open_with(file_name, &options)?.into_std())
}

/// Flushes a folder's entries to disk.
pub fn sync(folder: &Dir) -> io::Result<()> {
    // The descriptor of a `Dir` may name a place without being open for anything.
    folder.open(".")?.sync_all()
}

/// What follows the content.
pub fn description(
    name: &ObjectName,
    content_type: String,
    sha256: digest::Digest,
    modified_ms: i64,
) -> (Vec<u8>, String) {
    let sha256 = hex(sha256);
    let description = Description {
        name: name.as_str().to_owned(),
        content_type,
        sha256: sha256.clone(),
        modified_ms,
    };
    let mut bytes = serde_json::to_vec(&description).expect("texts and a number are JSON");
    let length = u32::try_from(bytes.len()).expect("names and media types are bounded");
    bytes.extend(length.to_le_bytes());
    bytes.extend(MAGIC);
    (bytes, sha256)
}

/// Reads what describes the object of an open file.
pub fn read_info(file: &File) -> io::Result<Info> {
    let length = file.metadata()?.len();
    let tail_at = length
        .checked_sub(TAIL_BYTES)
        .ok_or_else(|| damaged("it is too short"))?;
    let mut tail = [0; TAIL_BYTES as usize];
    file.read_exact_at(&mut tail, tail_at)?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic != *MAGIC {
        return Err(damaged("it does not end as an object's file does"));
    }
    let description_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    let size = tail_at
        .checked_sub(description_bytes)
        .filter(|_| description_bytes <= DESCRIPTION_BYTES_MAX)
        .ok_or_else(|| damaged("its description has no such length"))?;
    let mut description = vec![0; usize::try_from(description_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut description, size)?;
    let told: Description = serde_json::from_slice(&description)?;
    let name = ObjectName::parse(&told.name, usize::MAX).map_err(io::Error::other)?;
    Ok(Info {
        name,
        size,
        content_type: told.content_type,
        etag: told.sha256.clone(),
        sha256: Some(told.sha256),
        modified_ms: told.modified_ms,
    })
}

/// Reads what describes the object `name` of an open file; another object's file is damage.
pub fn read_info_of(name: &ObjectName, file: &File) -> io::Result<Info> {
    let info = read_info(file)?;
    if info.name == *name {
        Ok(info)
    } else {
        Err(damaged("it is another object's"))
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text, 1_024).unwrap()
    }

    /// What a file of these bytes says.
    fn read(bytes: &[u8]) -> io::Result<Info> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_info_of(&name("../é\0"), &file)
    }

    fn described(content: &[u8]) -> Vec<u8> {
        let sha256 = digest::digest(&digest::SHA256, content);
        let (description, _) = description(&name("../é\0"), "text/plain".to_owned(), sha256, 7);
        [content, &description].concat()
    }

    #[test]
    fn what_was_written_is_read() {
        for content in [&b""[..], b"hello", &described(b"an object in an object")] {
            let info = read(&described(content)).unwrap();
            assert_eq!((info.size, info.modified_ms), (content.len() as u64, 7));
            assert_eq!(info.content_type, "text/plain");
            assert_eq!(info.sha256.as_deref(), Some(info.etag.as_str()));
        }
    }

    #[test]
    fn what_was_not_is_damage() {
        let whole = described(b"hello");
        for cut in 1..=whole.len() {
            assert!(read(&whole[..whole.len() - cut]).is_err(), "{cut}");
        }
        let with_length = |length: u32| {
            let mut bytes = whole.clone();
            let at = bytes.len() - 12;
            bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
            bytes
        };
        for length in [0, 1, 10, 100_000, u32::MAX] {
            assert!(read(&with_length(length)).is_err(), "{length}");
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole).unwrap();
        assert!(read_info_of(&name("another"), &file).is_err());
    }
}
