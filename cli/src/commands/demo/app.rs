//! The demo's application: a small HTTP service with `/health` and `/version`, in one static binary.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
};

const VERSION: &str = env!("APP_VERSION");
const HEALTHY: bool = option_env!("APP_BROKEN").is_none();

fn main() -> std::io::Result<()> {
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    println!("version {VERSION} listens on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers end with an empty line.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, body) = match path {
        "/version" => ("200 OK", VERSION.to_owned()),
        "/health" if HEALTHY => ("200 OK", "ok".to_owned()),
        "/health" => {
            eprintln!("health: cannot reach the database at db.internal:5432");
            ("500 Internal Server Error", "cannot reach the database".to_owned())
        }
        _ => ("404 Not Found", "not found".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
