//! Whether a file is a whole component, or one that is still being written.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const MAGIC: &[u8; 4] = b"\0asm";
/// Magic, version and layer: of a core module or of a component.
const HEADER_BYTES: usize = 8;

/// Whether the sections of a WebAssembly binary end where the file does. Only their heads are read.
pub(super) fn is_whole(path: &Path) -> bool {
    let size = |file: &File| file.metadata().map(|found| found.len());
    let whole = File::open(path).and_then(|file| {
        let size = size(&file)?;
        sections_end_at(BufReader::with_capacity(64, file), size)
    });
    whole.unwrap_or(false)
}

fn sections_end_at(mut file: impl Read + Seek, size: u64) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    let mut at = HEADER_BYTES as u64;
    // Without a section it is nothing that could run: more is to come.
    if !header.starts_with(MAGIC) || at == size {
        return Ok(false);
    }
    while at < size {
        let mut id = [0];
        file.read_exact(&mut id)?;
        let (length, bytes) = leb128(&mut file)?;
        at += 1 + bytes + length;
        file.seek(SeekFrom::Start(at))?;
    }
    Ok(at == size)
}

/// A number of 32 bits, and how many bytes it takes.
fn leb128(file: &mut impl Read) -> io::Result<(u64, u64)> {
    let mut value = 0;
    for place in 0..5 {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            return Ok((value, place + 1));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn whole(bytes: &[u8]) -> bool {
        sections_end_at(Cursor::new(bytes), bytes.len() as u64).unwrap_or(false)
    }

    #[test]
    fn only_what_is_there_to_its_last_byte_is_whole() {
        let component = include_bytes!("../../../workloads/dist/hello.wasm");
        assert!(whole(component));
        // Between two sections it is whole to this test, and no component to any other.
        let cuts = (0..component.len()).filter(|&cut| whole(&component[..cut]));
        let cuts = cuts.count();
        assert!((1..100).contains(&cuts), "{cuts} of {}", component.len());
        assert!(!whole(&component[..component.len() - 1]));
        assert!(!whole(&[component.as_slice(), b"x"].concat()));
        assert!(!whole(b"app = 'a'\n"));
    }
}
