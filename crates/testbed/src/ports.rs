//! Ports that no other program takes between the choice and the server's start.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::{Error, Result};

/// A free TCP port on 127.0.0.1 for a server that has to be told its port.
///
/// The port is left in TIME_WAIT: for the next minute the kernel does not assign it to a program that asks for any
/// port, while a server that names it (and sets `SO_REUSEADDR`, as servers do) gets it.
///
/// # Errors
/// When the machine is out of ports.
pub fn free_port() -> Result<u16> {
    let reserve = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        // The side that closes first is the one left in TIME_WAIT.
        drop(server);
        drop(client);
        Ok(address.port())
    };
    reserve().map_err(Error::io("cannot reserve a port on 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
