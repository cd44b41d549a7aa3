//! AWS's published code as a peer of Capsule's: each command does one thing with AWS's crates and
//! prints what they say as JSON.
//!
//!   aws_peer build OUT KERNEL CMDLINE METADATA KEY|- CERT|- RAMDISK...
//!   aws_peer describe EIF
//!   aws_peer document FILE      an attestation document: signature checked against its certificate
//!   aws_peer nsm PROGRAM...     asks the NSM that PROGRAM serves on its standard input, a socket

use aws_nitro_enclaves_cose::{crypto::Openssl, CoseSign1};
use aws_nitro_enclaves_image_format::defs::EifIdentityInfo;
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::{EifBuilder, PcrSignatureChecker, SignKeyData};
use aws_nitro_enclaves_nsm_api::api::{AttestationDoc, Request, Response};
use serde_bytes::ByteBuf;
use serde_json::{json, Value};
use sha2::{Digest, Sha384};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

type Outcome = Result<Value, String>;

fn text<E: std::fmt::Debug>(e: E) -> String {
    format!("{e:?}")
}

fn build(args: &[String]) -> Outcome {
    let [out, kernel, cmdline, metadata, key, cert, ramdisks @ ..] = args else {
        return Err("build OUT KERNEL CMDLINE METADATA KEY CERT RAMDISK...".into());
    };
    let identity: EifIdentityInfo = serde_json::from_slice(&fs::read(metadata).map_err(text)?).map_err(text)?;
    let sign = match key.as_str() {
        "-" => None,
        _ => Some(SignKeyData::new(key, Path::new(cert))?),
    };
    let cmdline = fs::read_to_string(cmdline).map_err(text)?;
    let mut builder = EifBuilder::new(Path::new(kernel), cmdline, sign, Sha384::new(), 0, identity);
    for ramdisk in ramdisks {
        builder.add_ramdisk(Path::new(ramdisk));
    }
    let measured = builder.write_to(&mut File::create(out).map_err(text)?);
    Ok(json!({ "Measurements": measured }))
}

fn describe(path: &str) -> Outcome {
    let mut eif = EifReader::from_eif(path.to_string())?;
    let measured = eif.get_measurements()?;
    let header = eif.get_header();
    let mut signature = json!(null);
    if eif.signature_section.is_some() {
        let certificate = eif.get_certificate_info(measured.clone())?;
        signature = json!({
            "pcr0": eif.sign_check,
            "cose": PcrSignatureChecker::from_eif(path)?.verify().is_ok(),
            "issuer": certificate.issuer_name,
        });
    }
    Ok(json!({
        "Version": header.version,
        "Flags": header.flags,
        "Sections": header.num_sections,
        "CRC32": format!("{:08x}", header.eif_crc32),
        "CRCMatches": eif.check_crc(),
        "Measurements": measured,
        "Metadata": eif.metadata,
        "Signature": signature,
    }))
}

/// The document as AWS's structures see it, after its signature was checked with its certificate.
fn read_document(raw: &[u8]) -> Outcome {
    let sign1 = CoseSign1::from_bytes(raw).map_err(text)?;
    let payload = sign1.get_payload::<Openssl>(None).map_err(text)?;
    let doc = AttestationDoc::from_binary(&payload).map_err(text)?;
    let certificate = openssl::x509::X509::from_der(&doc.certificate).map_err(text)?;
    let key = certificate.public_key().map_err(text)?;
    let verified = sign1.verify_signature::<Openssl>(key.as_ref()).map_err(text)?;
    let option = |b: &Option<ByteBuf>| b.as_ref().map(hex::encode);
    Ok(json!({
        "verified": verified,
        "module_id": doc.module_id,
        "digest": format!("{:?}", doc.digest),
        "timestamp": doc.timestamp,
        "pcrs": doc.pcrs.iter().map(|(i, v)| (i.to_string(), json!(hex::encode(v)))).collect::<serde_json::Map<_, _>>(),
        "cabundle": doc.cabundle.len(),
        "public_key": option(&doc.public_key),
        "user_data": option(&doc.user_data),
        "nonce": option(&doc.nonce),
    }))
}

fn response_json(response: Response) -> Outcome {
    Ok(match response {
        Response::DescribePCR { lock, data } => json!({"DescribePCR": {"lock": lock, "data": hex::encode(data)}}),
        Response::ExtendPCR { data } => json!({"ExtendPCR": {"data": hex::encode(data)}}),
        Response::LockPCR => json!("LockPCR"),
        Response::LockPCRs => json!("LockPCRs"),
        Response::DescribeNSM { version_major, version_minor, version_patch, module_id, max_pcrs, locked_pcrs, digest } => json!({
            "DescribeNSM": {"version": [version_major, version_minor, version_patch], "module_id": module_id,
                "max_pcrs": max_pcrs, "locked_pcrs": locked_pcrs, "digest": format!("{digest:?}")}}),
        Response::Attestation { document } => json!({"Attestation": read_document(&document)?}),
        Response::GetRandom { random } => json!({"GetRandom": random.len()}),
        Response::Error(code) => json!({"Error": format!("{code:?}")}),
        _ => return Err("a response that this version of the crate does not know".into()),
    })
}

fn requests() -> Vec<Request> {
    let bytes = |n: usize| Some(ByteBuf::from(vec![7u8; n]));
    let attest = |user_data, nonce, public_key| Request::Attestation { user_data, nonce, public_key };
    let extend = |index, n| Request::ExtendPCR { index, data: vec![1u8; n] };
    vec![
        Request::DescribeNSM,
        Request::GetRandom,
        Request::DescribePCR { index: 0 },
        Request::DescribePCR { index: 16 },
        Request::DescribePCR { index: 32 },
        extend(16, 32),
        extend(0, 32),
        extend(16, 3000),
        Request::LockPCR { index: 16 },
        extend(16, 32),
        Request::DescribePCR { index: 16 },
        Request::LockPCR { index: 16 },
        Request::LockPCRs { range: 20 },
        extend(19, 1),
        extend(20, 1),
        Request::LockPCRs { range: 33 },
        attest(None, None, None),
        attest(bytes(512), bytes(512), bytes(1024)),
        attest(bytes(0), bytes(0), bytes(1)),
        attest(bytes(513), None, None),
        attest(None, bytes(513), None),
        attest(None, None, bytes(1025)),
    ]
}

/// PROGRAM takes a request and gives an answer, each after its length in four big-endian bytes.
fn nsm(args: &[String]) -> Outcome {
    let [program, rest @ ..] = args else { return Err("nsm PROGRAM...".into()) };
    let (mut ours, theirs) = UnixStream::pair().map_err(text)?;
    let mut child = Command::new(program).args(rest).stdin(OwnedFd::from(theirs)).spawn().map_err(text)?;
    let mut answers = Vec::new();
    for request in requests() {
        let body = serde_cbor::to_vec(&request).map_err(text)?;
        ours.write_all(&(body.len() as u32).to_be_bytes()).and_then(|()| ours.write_all(&body)).map_err(text)?;
        let mut length = [0u8; 4];
        ours.read_exact(&mut length).map_err(text)?;
        let mut answer = vec![0u8; u32::from_be_bytes(length) as usize];
        ours.read_exact(&mut answer).map_err(text)?;
        let response = serde_cbor::from_slice(&answer).map_err(|e| format!("{request:?}: {e:?}"))?;
        answers.push(response_json(response).map_err(|e| format!("{request:?}: {e}"))?);
    }
    drop(ours);
    child.wait().map_err(text)?;
    Ok(json!(answers))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((what, rest)) if what == "build" => build(rest),
        Some((what, [path])) if what == "describe" => describe(path),
        Some((what, [path])) if what == "document" => fs::read(path).map_err(text).and_then(|raw| read_document(&raw)),
        Some((what, rest)) if what == "nsm" => nsm(rest),
        _ => Err("build, describe, document or nsm".into()),
    };
    match outcome {
        Ok(value) => println!("{value}"),
        Err(e) => {
            eprintln!("aws_peer: {e}");
            std::process::exit(1);
        }
    }
}
