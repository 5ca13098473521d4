//! The application that the tests release: a small HTTP server in one static binary, whose image says which version it
//! is and whether it is healthy.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() -> std::io::Result<()> {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let version = env::var("VERSION").unwrap_or_default();
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!("version {version} listens on port {port}");
    if env::var("SICK").is_ok() {
        // Early, since what a container writes is in its log somewhat later.
        eprintln!("cannot reach the database at db.internal:5432");
    }
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let version = version.clone();
        thread::spawn(move || answer(stream, &version));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, version: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers end with an empty line.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let healthy = env::var("SICK").is_err();
    let (status, body) = match request.split(' ').nth(1).unwrap_or("/") {
        "/version" => ("200 OK", version),
        "/health" if healthy => ("200 OK", "ok"),
        "/health" => {
            eprintln!("health: cannot reach the database at db.internal:5432");
            ("500 Internal Server Error", "cannot reach the database")
        }
        _ => ("404 Not Found", "not found"),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
