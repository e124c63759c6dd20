//! A server of our own, with bad manners.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// What it does wrong. The default: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    /// The size that it claims, in bytes.
    pub size: u64,
    /// It greets as something else.
    pub magic: u64,
    /// The flags of its export.
    pub flags: u16,
    /// Its answer to the wish for the export is an error with this text.
    pub refusal: Option<String>,
    /// What becomes of the request of this number, counted from 0, and of those after it.
    pub spoiled: Option<(usize, Spoil)>,
    /// It accepts, and says nothing.
    pub silent: bool,
    /// The block sizes that it names: the smallest, the best, and the most bytes.
    pub blocks: Option<[u32; 3]>,
}

/// How a request is answered badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// Not at all.
    Hang,
    /// With the end of the connection, before a byte.
    Close,
    /// With the end of the connection, in the middle of the data or header.
    CloseInReply,
    /// With something that is no reply.
    Magic,
    /// With the reply to another request.
    Cookie,
    /// With this error, as the protocol numbers them.
    Error(u32),
}

/// `NBD_FLAG_HAS_FLAGS`, `_SEND_FLUSH` and `_SEND_TRIM`.
const USUAL_FLAGS: u16 = 1 | 4 | 32;
/// `NBDMAGIC` and `IHAVEOPT`.
const MAGIC: [u64; 2] = [0x4e42_444d_4147_4943, 0x4948_4156_454f_5054];

impl Default for Manners {
    fn default() -> Self {
        Self {
            size: 8 << 20,
            magic: MAGIC[0],
            flags: USUAL_FLAGS,
            refusal: None,
            spoiled: None,
            silent: false,
            blocks: None,
        }
    }
}

/// A running server. Ends with the value, but for connections that hang.
#[derive(Debug)]
pub struct Fake {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manners: Mutex<Manners>,
    disk: Mutex<Vec<u8>>,
    clients: Mutex<Vec<UnixStream>>,
}

impl Fake {
    /// Listens on a socket in `dir`.
    pub fn start(dir: &Path, manners: Manners) -> io::Result<Self> {
        let socket = dir.join("fake.sock");
        let listener = UnixListener::bind(&socket)?;
        let disk = Mutex::new(vec![0; usize::try_from(manners.size.min(16 << 20)).unwrap_or(0)]);
        let shared = Arc::new(Shared { manners: Mutex::new(manners), disk, clients: Mutex::default() });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
                clients.extend(client.try_clone());
                drop(clients);
                thread::spawn(move || {
                    // It ends as the client wants, or as it deserves.
                    _ = shared.serve(&client);
                    _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { socket, shared })
    }

    /// From the next connection on.
    pub fn behave(&self, manners: Manners) {
        *self.shared.manners.lock().unwrap_or_else(PoisonError::into_inner) = manners;
    }

    /// Ends all connections.
    pub fn hang_up(&self) {
        for client in self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have gone by itself.
            _ = client.shutdown(Shutdown::Both);
        }
    }

    /// The URI of its export.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

impl Shared {
    fn serve(&self, mut client: &UnixStream) -> io::Result<()> {
        let manners = self.manners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if manners.silent {
            return hang(client);
        }
        client.write_all(&manners.magic.to_be_bytes())?;
        client.write_all(&MAGIC[1].to_be_bytes())?;
        // Fixed newstyle, no zeroes.
        client.write_all(&3_u16.to_be_bytes())?;
        // The flags of the client.
        read(&mut client, [0; 4])?;
        if !negotiate(&mut client, &manners)? {
            return Ok(());
        }
        for number in 0.. {
            let spoil = manners.spoiled.filter(|(first, _)| number >= *first).map(|(_, spoil)| spoil);
            if !self.request(&mut client, spoil)? {
                break;
            }
        }
        Ok(())
    }

    /// One request. False: it was the last.
    fn request(&self, client: &mut &UnixStream, spoil: Option<Spoil>) -> io::Result<bool> {
        let header = read(client, [0; 28])?;
        let number =
            |from: usize, to: usize| header[from..to].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (command, cookie) = (number(6, 8), number(8, 16));
        let (offset, len) = (number(16, 24) as usize, number(24, 28) as usize);
        let mut data = vec![0; if command == 1 { len } else { 0 }];
        client.read_exact(&mut data)?;
        if command == 2 {
            return Ok(false);
        }
        let (mut magic, mut said, mut error) = (0x6744_6698_u32, cookie, 0);
        match spoil {
            Some(Spoil::Hang) => return hang(client).map(|()| false),
            Some(Spoil::Close) => return Ok(false),
            Some(Spoil::Magic) => magic = 0xDEAD_BEEF,
            Some(Spoil::Cookie) => said = cookie.wrapping_add(1000),
            Some(Spoil::Error(number)) => error = number,
            Some(Spoil::CloseInReply) | None => {}
        }
        let mut reply = [&magic.to_be_bytes()[..], &error.to_be_bytes(), &said.to_be_bytes()].concat();
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(range) =
            disk.get_mut(offset..offset + if command == 3 { 0 } else { len }).filter(|_| error == 0)
        {
            match command {
                0 => reply.extend_from_slice(range),
                1 => range.copy_from_slice(&data),
                4 => range.fill(0),
                _ => {}
            }
        }
        drop(disk);
        if spoil == Some(Spoil::CloseInReply) {
            client.write_all(&reply[..reply.len() / 2])?;
            return Ok(false);
        }
        client.write_all(&reply)?;
        Ok(true)
    }
}

/// Options, until the export is taken. False: it is not.
fn negotiate(client: &mut &UnixStream, manners: &Manners) -> io::Result<bool> {
    loop {
        let header = read(client, [0; 16])?;
        let number = |from: usize| {
            u32::from_be_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]])
        };
        let (option, len) = (number(8), number(12));
        let mut data = vec![0; len as usize];
        client.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
            let len = u32::try_from(data.len()).unwrap_or(0).to_be_bytes();
            client.write_all(&[&magic[..], &option.to_be_bytes(), &kind.to_be_bytes(), &len, data].concat())
        };
        match (option, &manners.refusal) {
            // NBD_OPT_GO
            (7, Some(text)) => reply(0x8000_0006, text.as_bytes())?,
            (7, None) => {
                // NBD_INFO_EXPORT
                let info =
                    [&0_u16.to_be_bytes()[..], &manners.size.to_be_bytes(), &manners.flags.to_be_bytes()];
                reply(3, &info.concat())?;
                if let Some(blocks) = manners.blocks {
                    let sizes = blocks.map(u32::to_be_bytes).concat();
                    reply(3, &[&3_u16.to_be_bytes()[..], &sizes].concat())?;
                }
                reply(1, &[])?;
                return Ok(true);
            }
            // NBD_OPT_ABORT
            (2, _) => {
                reply(1, &[])?;
                return Ok(false);
            }
            _ => reply(0x8000_0001, &[])?,
        }
    }
}

fn read<const N: usize>(client: &mut &UnixStream, mut bytes: [u8; N]) -> io::Result<[u8; N]> {
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Keeps the connection, and does nothing, until the client ends it.
fn hang(mut client: &UnixStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    while client.read(&mut bytes)? > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
