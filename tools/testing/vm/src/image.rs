//! What the JIT has made of a program on one kernel, and whether it is the same on another: byte for byte,
//! but for the addresses and the numbers of types in it, which have to be those of the same things.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Addresses of the kernel and its modules, whatever else lies below.
const IMAGES: u64 = 0xffff_ffff_8000_0000;
/// Where the kernel's addresses begin, with page tables of five levels.
const KERNEL: u64 = 0xff00_0000_0000_0000;
/// Where user space has mapped what it shares with the program, an arena, up to where it ends.
const MAPPED: u64 = 0x7f00_0000_0000;
const USER_END: u64 = 0x8000_0000_0000;
/// Allocations of one kind, be it slabs or vmalloc, have the same bits above these.
const REGION_BITS: u32 = 40;

/// The kernel's symbols, as /proc/kallsyms has them.
pub struct Symbols(BTreeMap<u64, Vec<String>>);

impl Symbols {
    pub fn parse(kallsyms: &str) -> Result<Self> {
        let mut symbols = BTreeMap::<_, Vec<_>>::new();
        for line in kallsyms.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let address = u64::from_str_radix(address, 16)
                .with_context(|| format!("'{line}' is no symbol"))?;
            symbols.entry(address).or_default().push(name.to_owned());
        }
        Ok(Self(symbols))
    }

    /// The names of what lies at or before this address, and how far before.
    fn nearest(&self, address: u64) -> Option<(&[String], u64)> {
        let (start, names) = self.0.range(..=address).next_back()?;
        Some((names, address - start))
    }
}

/// The kernel's types by their numbers, as 'bpftool btf dump file' has them.
pub struct Types(BTreeMap<u32, String>);

impl Types {
    /// Reads lines like "[4] STRUCT 'sk_buff' size=232 vlen=30", and leaves out what has no name.
    pub fn parse(dump: &str) -> Self {
        let named = dump.lines().filter_map(|line| {
            let (number, kind) = line.strip_prefix('[')?.split_once("] ")?;
            let (kind, _) = kind.rsplit_once('\'')?;
            let number = number.parse().ok()?;
            (!kind.ends_with("'(anon)")).then(|| (number, kind.to_owned()))
        });
        Self(named.collect())
    }

    /// Kind and name.
    fn name(&self, number: u32) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }
}

/// A function of a program.
#[derive(Debug)]
pub struct Function {
    address: u64,
    code: Vec<u8>,
}

/// A program, subprograms included.
#[derive(Debug)]
pub struct Image {
    functions: Vec<Function>,
}

/// What an address is that of.
enum Place<'a> {
    /// A byte of one of the program's own functions.
    Own(usize, u64),
    Symbol(&'a [String], u64),
    Allocated(u64),
}

impl Place<'_> {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(function, offset), Self::Own(other_function, other_offset)) => {
                function == other_function && offset == other_offset
            }
            (Self::Symbol(names, offset), Self::Symbol(other_names, other_offset)) => {
                offset == other_offset && names.iter().any(|name| other_names.contains(name))
            }
            (Self::Allocated(region), Self::Allocated(other)) => region == other,
            _ => false,
        }
    }
}

impl Image {
    /// Reads lines of address and code.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let function = |line: &str| {
            let (address, code) = line.split_once(' ')?;
            let byte = |index| u8::from_str_radix(code.get(index..index + 2)?, 16).ok();
            Some(Function {
                address: u64::from_str_radix(address, 16).ok()?,
                code: (0..code.len())
                    .step_by(2)
                    .map(byte)
                    .collect::<Option<_>>()?,
            })
        };
        let functions = lines
            .into_iter()
            .map(|line| function(line).with_context(|| format!("'{line}' is no function")));
        Ok(Self {
            functions: functions.collect::<Result<_>>()?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    fn place<'a>(&self, address: u64, symbols: &'a Symbols) -> Option<Place<'a>> {
        for (index, function) in self.functions.iter().enumerate() {
            let offset = address.checked_sub(function.address);
            if let Some(offset) = offset.filter(|&offset| offset <= function.code.len() as u64) {
                return Some(Place::Own(index, offset));
            }
        }
        match address {
            IMAGES.. => {
                let (names, offset) = symbols.nearest(address)?;
                Some(Place::Symbol(names, offset))
            }
            MAPPED..USER_END | KERNEL.. => Some(Place::Allocated(address >> REGION_BITS)),
            _ => None,
        }
    }

    /// Whether it calls one of these functions of the kernel.
    pub fn calls(&self, names: &[&str], symbols: &Symbols) -> bool {
        self.functions.iter().any(|function| {
            let starts = (1..function.code.len()).filter(|&at| function.code[at - 1] == 0xe8);
            let mut targets = starts.filter_map(|at| symbols.nearest(function.relative(at)?));
            targets.any(|(found, offset)| {
                offset == 0 && found.iter().any(|found| names.contains(&found.as_str()))
            })
        })
    }
}

impl Function {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.code.get(at..at + N)?.try_into().ok()
    }

    /// An operand that is the distance to an address from the instruction behind it.
    fn relative(&self, at: usize) -> Option<u64> {
        let distance = i32::from_le_bytes(self.bytes(at)?);
        let behind = self.address + at as u64 + 4;
        Some(behind.wrapping_add_signed(distance.into()))
    }

    /// An operand that is an address, cut to what extends to it by its sign.
    fn extended(&self, at: usize) -> Option<u64> {
        Some(i64::from(i32::from_le_bytes(self.bytes(at)?)) as u64)
    }

    /// Whether an operand of eight bytes is an allocation of each CPU: the next instruction, with its prefix
    /// for gs, adds where those of this CPU lie.
    fn is_per_cpu(&self, at: usize) -> bool {
        matches!(
            self.bytes(at + 8),
            Some([0x65, 0x48 | 0x49 | 0x4c | 0x4d, 0x03])
        )
    }

    /// The operand of mov to a register of four bytes.
    fn number(&self, at: usize) -> Option<u32> {
        let opcode = self.code.get(at.checked_sub(1)?)?;
        matches!(opcode, 0xb8..=0xbf)
            .then(|| self.bytes(at).map(u32::from_le_bytes))
            .flatten()
    }

    /// The operand of movabs.
    fn absolute(&self, at: usize) -> Option<u64> {
        let opcode = self.bytes::<2>(at.checked_sub(2)?)?;
        matches!(opcode, [0x48 | 0x49, 0xb8..=0xbf])
            .then(|| self.bytes(at).map(u64::from_le_bytes))
            .flatten()
    }
}

/// How an address may stand in the code: its size, and how it is read.
type Read = fn(&Function, usize) -> Option<u64>;
const OPERANDS: [(usize, Read); 3] = [
    (8, Function::absolute),
    (4, Function::relative),
    (4, Function::extended),
];

/// An image, and symbols and types of its kernel.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub image: &'a Image,
    pub symbols: &'a Symbols,
    pub types: &'a Types,
}

/// Says where two images are not the same, if anywhere.
pub fn difference(a: Side, b: Side) -> Option<String> {
    let (count, other_count) = (a.image.functions.len(), b.image.functions.len());
    if count != other_count {
        return Some(format!("{count} functions, {other_count} functions"));
    }
    (0..count).find_map(|index| {
        let (code, other) = (
            &a.image.functions[index].code,
            &b.image.functions[index].code,
        );
        if code.len() != other.len() {
            return Some(format!(
                "function {index} has {} bytes, {} bytes",
                code.len(),
                other.len()
            ));
        }
        let mut at = 0;
        while let Some(next) = (at..code.len()).find(|&at| code[at] != other[at]) {
            let behind = behind_address(a, b, index, next);
            at = match behind.or_else(|| behind_type(a, b, index, next)) {
                Some(behind) => behind,
                None => return Some(context(index, next, code, other)),
            };
        }
        None
    })
}

/// If the bytes that differ here are of one address on either side, and the same thing lies there: where
/// the address ends.
fn behind_address(a: Side, b: Side, index: usize, at: usize) -> Option<usize> {
    let of = |image: &Image, start, read: Read| read(&image.functions[index], start);
    OPERANDS.into_iter().find_map(|(size, read)| {
        (at.saturating_sub(size - 1)..=at).find_map(|start| {
            let (address, other) = (of(a.image, start, read)?, of(b.image, start, read)?);
            let per_cpu = |side: Side| side.image.functions[index].is_per_cpu(start);
            if size == 8 && per_cpu(a) && per_cpu(b) {
                return Some(start + size);
            }
            let place = a.image.place(address, a.symbols)?;
            let other = b.image.place(other, b.symbols)?;
            // Four bytes do not reach what is allocated.
            let reaches = size == 8 || !matches!(place, Place::Allocated(_));
            (reaches && place.same(&other)).then_some(start + size)
        })
    })
}

/// The same for numbers of a type, where either kernel has one of that kind and name.
fn behind_type(a: Side, b: Side, index: usize, at: usize) -> Option<usize> {
    (at.saturating_sub(size_of::<u32>() - 1)..=at).find_map(|start| {
        let number = |image: &Image| image.functions[index].number(start);
        let name = a.types.name(number(a.image)?)?;
        let other = b.types.name(number(b.image)?)?;
        (name == other).then_some(start + size_of::<u32>())
    })
}

/// The bytes round a difference.
fn context(index: usize, at: usize, code: &[u8], other: &[u8]) -> String {
    let range = at.saturating_sub(8)..(at + 12).min(code.len());
    let hex = |code: &[u8]| {
        let bytes = code[range.clone()].iter().map(|byte| format!("{byte:02x}"));
        Vec::from_iter(bytes).join(" ")
    };
    format!(
        "function {index}, byte {at}: {} | {}",
        hex(code),
        hex(other)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(text: &str) -> Symbols {
        Symbols::parse(text).unwrap()
    }

    fn image(text: &str) -> Image {
        Image::parse(text.lines()).unwrap()
    }

    /// Compares images on kernels whose `work` and `data` lie in different places, and whose types have
    /// different numbers.
    fn compared(a: &str, b: &str) -> Option<String> {
        let a_symbols =
            symbols("ffffffff81000000 T work\nffffffff81000100 T idle\nffffffff82000000 d data\n");
        let b_symbols =
            symbols("ffffffff81001000 T work\nffffffff81001100 T idle\nffffffff82003000 d data\n");
        let a = Side {
            image: &image(a),
            symbols: &a_symbols,
            types: &Types::parse(
                "[1] INT 'int' size=4\n[2] STRUCT '(anon)' size=8\n[3] STRUCT 'a' size=8\n\t'b' type_id=1\n",
            ),
        };
        let b = Side {
            image: &image(b),
            symbols: &b_symbols,
            types: &Types::parse(
                "[1] INT 'int' size=4\n[3] STRUCT '(anon)' size=8\n[4] STRUCT 'a' size=8\n[5] UNION 'a' size=8\n",
            ),
        };
        difference(a, b)
    }

    #[test]
    fn the_same_code_is_the_same() {
        let text = "ffffffffc0000000 0f1f440000c3\nffffffffc0000100 c3";
        assert_eq!(compared(text, text), None);
    }

    #[test]
    fn other_code_is_told() {
        let found = compared("ffffffffc0000000 554889e5c3", "ffffffffc0000000 554889e6c3");
        assert_eq!(
            found.unwrap(),
            "function 0, byte 3: 55 48 89 e5 c3 | 55 48 89 e6 c3"
        );
        let found = compared("ffffffffc0000000 c3", "ffffffffc0000000 c3c3");
        assert_eq!(found.unwrap(), "function 0 has 1 bytes, 2 bytes");
        let found = compared(
            "ffffffffc0000000 c3",
            "ffffffffc0000000 c3\nffffffffc0000100 c3",
        );
        assert_eq!(found.unwrap(), "1 functions, 2 functions");
    }

    #[test]
    fn calls_of_the_same_function_are_the_same() {
        // From ffffffffc0000000, the instruction behind the call being at 5.
        let work = "ffffffffc0000000 e8fbffffc0c3";
        assert_eq!(compared(work, "ffffffffc0000000 e8fb0f00c1c3"), None);
        // Another function, and another place in the same function.
        assert!(compared(work, "ffffffffc0000000 e8fb1000c1c3").is_some());
        assert!(compared(work, "ffffffffc0000000 e8fc0f00c1c3").is_some());
        // Subprograms that lie somewhere else.
        let near = "ffffffffc0000000 e8fb000000\nffffffffc0000100 c3";
        let far = "ffffffffc0001000 e8fb070000\nffffffffc0001800 c3";
        assert_eq!(compared(near, far), None);
    }

    #[test]
    fn operands_that_are_addresses_of_the_same_thing_are_the_same() {
        let absolute = "ffffffffc0000000 48b804000082ffffffff";
        let moved = absolute.replace("04000082", "04300082");
        assert_eq!(compared(absolute, &moved), None);
        assert!(compared(absolute, &absolute.replace("04000082", "05300082")).is_some());
        // mov rax, with an immediate that is extended by its sign.
        let short = "ffffffffc0000000 48c7c004000082";
        assert_eq!(compared(short, "ffffffffc0000000 48c7c004300082"), None);
        assert!(compared(short, "ffffffffc0000000 48c7c004310082").is_some());
        // Allocations lie anywhere, but of one kind.
        let slab = "ffffffffc0000000 48bf001020308088ffff";
        assert_eq!(compared(slab, &slab.replace("102030", "405060")), None);
        assert!(compared(slab, &slab.replace("8088ffff", "00c9ffff")).is_some());
        let arena = "ffffffffc0000000 48bfa02884f7ff7f0000";
        assert_eq!(compared(arena, &arena.replace("2884", "0884")), None);
        assert!(compared(arena, &arena.replace("f7ff7f", "f7ff6f")).is_some());
        // Allocations of each CPU are told by what follows.
        let per_cpu = "ffffffffc0000000 49b90010203040506000654c030c25";
        assert_eq!(
            compared(per_cpu, &per_cpu.replace("405060", "415161")),
            None
        );
        let other = per_cpu.replace("654c03", "674c03");
        assert!(compared(&other, &other.replace("405060", "415161")).is_some());
        // A number that is no address.
        assert!(
            compared(
                "ffffffffc0000000 48b80100000000000000",
                "ffffffffc0000000 48b80200000000000000"
            )
            .is_some()
        );
    }

    #[test]
    fn numbers_of_the_same_type_are_the_same() {
        let number = "ffffffffc0000000 be03000000c3";
        assert_eq!(compared(number, &number.replace("03", "04")), None);
        assert!(compared(number, &number.replace("03", "05")).is_some());
        // Without a name, and no number that is loaded.
        let unnamed = number.replace("03", "02");
        assert!(compared(&unnamed, number).is_some());
        let added = number.replace("be", "05");
        assert!(compared(&added, &added.replace("03", "04")).is_some());
    }

    #[test]
    fn calls_are_found_by_name() {
        let symbols = symbols("ffffffff81000000 T work\nffffffff81000100 T idle\n");
        let image = image("ffffffffc0000000 90e8faffffc0c3");
        assert!(image.calls(&["idle", "work"], &symbols));
        assert!(!image.calls(&["idle"], &symbols));
    }
}
