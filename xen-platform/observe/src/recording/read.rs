//! Reads and writes whole recordings.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use super::{Entry, FORMAT, Header, VERSION};

/// A recording in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Who has recorded it.
    pub header: Header,
    /// What happened, in order.
    pub entries: Vec<Entry>,
}

/// Why a file cannot be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system's.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The first line is no header.
    #[error("{}: is no recording: {text}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// A line is not as it should be.
    #[error("{}:{line}: {cause}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        cause: serde_json::Error,
    },
}

impl Recording {
    /// Reads a file. A last line without an end is left out: its program was killed. Errors: it cannot be read, is none, or of
    /// another version.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        let io = |cause| ReadError::Io { path: path.into(), cause };
        let refuse = |text: String| ReadError::Header { path: path.into(), text };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut text = Vec::new();
        file.read_until(b'\n', &mut text).map_err(io)?;
        let header: Header = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        if header.format != FORMAT {
            return Err(refuse(format!("its format is {:?}", header.format)));
        }
        if header.version != VERSION {
            return Err(refuse(format!("version {} is not {VERSION}", header.version)));
        }
        let mut entries = Vec::new();
        for line in 2.. {
            text.clear();
            file.read_until(b'\n', &mut text).map_err(io)?;
            if text.last() != Some(&b'\n') {
                break;
            }
            let entry = serde_json::from_slice(&text);
            entries.push(entry.map_err(|cause| ReadError::Line { path: path.into(), line, cause })?);
        }
        Ok(Self { header, entries })
    }

    /// Writes a file, over one that is there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &self.header)?;
        file.write_all(b"\n")?;
        for entry in &self.entries {
            serde_json::to_writer(&mut file, entry)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// Its devices, in the order in which they come.
    pub fn devices(&self) -> Vec<&str> {
        let mut devices: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !entry.device.is_empty() && !devices.contains(&entry.device.as_str()) {
                devices.push(&entry.device);
            }
        }
        devices
    }
}

#[cfg(test)]
mod tests;
