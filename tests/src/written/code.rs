//! Functions of a written file, in a few words each, separated by `;`:
//!
//! * `return N`, `return [PLACE]`: the number, or the word of 8 bytes at the place;
//! * `exit N`, `exit [PLACE]`, `exit result`: ends the process with it, or with what the last call returned, by exit_group(2);
//! * `call [PLACE]`: calls the function whose address is the word at the place;
//! * `bytes 90 c3`: machine code as it is.

use super::value::{self, Places};

/// An instruction, or a few.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Return(Operand),
    Exit(Operand),
    Call(String),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Number(u32),
    Word(String),
    Result,
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    text.split(';').map(|step| parse(step.trim()).ok_or_else(|| format!("{step:?} is no step of a function"))).collect()
}

fn parse(step: &str) -> Option<Step> {
    let (verb, object) = step.split_once(' ')?;
    let place = object.strip_prefix('[').and_then(|o| o.strip_suffix(']')).map(String::from);
    let operand = || match &place {
        Some(place) => Some(Operand::Word(place.clone())),
        None if verb == "exit" && object == "result" => Some(Operand::Result),
        None => value::number(object).map(|n| Operand::Number(n as u32)),
    };
    match verb {
        "return" => operand().map(Step::Return),
        "exit" => operand().map(Step::Exit),
        "call" => place.map(Step::Call),
        "bytes" => object.split(' ').map(|b| u8::from_str_radix(b, 16).ok()).collect::<Option<_>>().map(Step::Bytes),
        _ => None,
    }
}

/// How many bytes a function has.
///
/// # Errors
/// The text is no function.
pub fn length(text: &str) -> Result<u64, String> {
    Ok(steps(text)?.iter().map(|step| encode(step, 0, &|_| Ok(0)).map_or(0, |bytes| bytes.len() as u64)).sum())
}

/// Its bytes at an address.
///
/// # Errors
/// The text is no function, or names an unknown place, or one that is too far away.
pub fn bytes(text: &str, mut address: u64, places: &Places) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    for step in steps(text)? {
        let bytes = encode(&step, address, &|place| places.text(place))?;
        address += bytes.len() as u64;
        all.extend(bytes);
    }
    Ok(all)
}

fn encode(step: &Step, address: u64, place: &dyn Fn(&str) -> Result<u64, String>) -> Result<Vec<u8>, String> {
    // An instruction that addresses relative to its end, which is `length` bytes behind the step's beginning.
    let relative = |opcode: &[u8], name: &str, length: u64| -> Result<Vec<u8>, String> {
        let distance = place(name)?.wrapping_sub(address + length) as i64;
        let distance = i32::try_from(distance).map_err(|_| format!("{name} is far away"))?;
        Ok([opcode, &distance.to_le_bytes()].concat())
    };
    Ok(match step {
        // mov $N,%eax; ret
        Step::Return(Operand::Number(n)) => [&[0xb8][..], &n.to_le_bytes(), &[0xc3]].concat(),
        // mov PLACE(%rip),%rax; ret
        Step::Return(Operand::Word(name)) => [&relative(&[0x48, 0x8b, 0x05], name, 7)?[..], &[0xc3]].concat(),
        // mov $N,%edi; mov $231,%eax; syscall
        Step::Exit(Operand::Number(n)) => [&[0xbf][..], &n.to_le_bytes(), &EXIT_GROUP].concat(),
        // mov PLACE(%rip),%edi; ...
        Step::Exit(Operand::Word(name)) => [&relative(&[0x8b, 0x3d], name, 6)?[..], &EXIT_GROUP].concat(),
        // mov %eax,%edi; ...
        Step::Exit(Operand::Result) => [&[0x89, 0xc7][..], &EXIT_GROUP].concat(),
        Step::Return(Operand::Result) => return Err("what a call returned is returned anyway".into()),
        // sub $8,%rsp; call *PLACE(%rip); add $8,%rsp
        Step::Call(name) => {
            let call = relative(&[0x48, 0x83, 0xec, 0x08, 0xff, 0x15], name, 10)?;
            [&call[..], &[0x48, 0x83, 0xc4, 0x08]].concat()
        }
        Step::Bytes(bytes) => bytes.clone(),
    })
}

/// mov $231,%eax; syscall
const EXIT_GROUP: [u8; 7] = [0xb8, 231, 0, 0, 0, 0x0f, 0x05];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_encoded() {
        let mut places = Places::default();
        places.set("word", 0x3000).expect("it is the first");
        let code = |text| bytes(text, 0x1000, &places);
        assert_eq!(code("return 7"), Ok(vec![0xb8, 7, 0, 0, 0, 0xc3]));
        // 0x3000 - 0x1007
        assert_eq!(code("return [word]"), Ok(vec![0x48, 0x8b, 0x05, 0xf9, 0x1f, 0, 0, 0xc3]));
        assert_eq!(code("exit result").map(|b| b[..2].to_vec()), Ok(vec![0x89, 0xc7]));
        for text in ["return 7", "return [word]", "exit 1", "exit [word]", "call [word]; return 0", "bytes 90 c3"] {
            assert_eq!(code(text).map(|b| b.len() as u64), length(text), "{text}");
        }
        for wrong in ["", "return", "jump 3", "call 7", "bytes 9x", "return [nowhere]", "return result"] {
            assert!(code(wrong).is_err(), "{wrong}");
        }
    }
}
