// The program behind kernels on the CPU: reads launches from one file, writes what became of their buffers to another.
//
// All numbers are 64-bit: how many launches; for each one the entry, grid x y z, block x y z, bytes of shared memory,
// order, seed, whether copies are late, whether the blocks run together, bytes of arguments, how many buffers, how many
// addresses; the arguments; each buffer's length and pieces, with their offset, length and contents; for each address
// its place in the arguments, the buffer and the offset in it. What comes back are the pieces. A huge buffer takes no
// more memory than is touched.
#pragma once

struct Entry {
  void (*kernel)(const void*);
  size_t bytes;
};

struct Buffer {
  char* memory;
  i64 bytes;
  struct Piece {
    i64 offset, length;
  };
  std::vector<Piece> pieces;
};

constexpr i64 HUGE_BYTES = i64(1) << 28;

inline char* memory_of(i64 bytes) {
  void* made = nullptr;
  if (bytes >= HUGE_BYTES) {
    made = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) _Exit(5);
  } else if (posix_memalign(&made, 512, bytes ? bytes : 1)) {  // aligned as by a GPU's allocator, and no longer
    _Exit(5);
  }
  return static_cast<char*>(made);
}

inline std::vector<char> contents_of(const char* path) {
  std::vector<char> contents;
  if (FILE* file = fopen(path, "rb")) {
    fseek(file, 0, SEEK_END);
    contents.resize(ftell(file));
    rewind(file);
    if (fread(contents.data(), 1, contents.size(), file) != contents.size()) contents.clear();
    fclose(file);
  }
  return contents;
}

inline int main_of(const Entry* entries, int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<char> input = contents_of(argv[1]);
  const char* at = input.data();
  auto next = [&] {
    i64 value;
    memcpy(&value, at, 8);
    at += 8;
    return value;
  };
  FILE* out = fopen(argv[2], "wb");
  if (!out || input.empty()) return 2;
  for (i64 launches = next(), number = 0; number < launches; number++) {
    i64 head[15];
    for (i64& value : head) value = next();
    const Entry& entry = entries[head[0]];
    if (size_t(head[12]) != entry.bytes) {
      fprintf(stderr, "cuda on cpu: %lld bytes of arguments, the kernel takes %zu\n", head[12], entry.bytes);
      return 2;
    }
    std::vector<char> arguments(at, at + head[12]);
    at += head[12];
    std::vector<Buffer> buffers(head[13]);
    for (Buffer& buffer : buffers) {
      buffer.bytes = next();
      buffer.memory = memory_of(buffer.bytes);
      buffer.pieces.resize(next());
      for (auto& [offset, length] : buffer.pieces) {
        offset = next();
        length = next();
        memcpy(buffer.memory + offset, at, length);
        at += length;
      }
    }
    for (i64 i = 0; i < head[14]; i++) {
      i64 place = next(), buffer = next(), offset = next();
      char* address = buffers[buffer].memory + offset;
      memcpy(arguments.data() + place, &address, 8);
    }
    dim3 grid{unsigned(head[1]), unsigned(head[2]), unsigned(head[3])};
    dim3 block{unsigned(head[4]), unsigned(head[5]), unsigned(head[6])};
    fprintf(stderr, "launch %lld\n", number);
    on_cpu::run(entry.kernel, arguments.data(), grid, block, head[7], int(head[8]), unsigned(head[9]), head[10] != 0,
                head[11] != 0);
    for (Buffer& buffer : buffers) {
      for (auto [offset, length] : buffer.pieces)
        if (length && fwrite(buffer.memory + offset, 1, length, out) != size_t(length)) return 2;
      if (buffer.bytes >= HUGE_BYTES)
        munmap(buffer.memory, buffer.bytes);
      else
        free(buffer.memory);
    }
  }
  return fclose(out) ? 2 : 0;
}
