// The program behind kernels on the CPU: reads launches from one file, writes what became of their buffers to another.
//
// All numbers are 64-bit: how many launches; for each one the entry, grid x y z, block x y z, bytes of shared memory,
// order, seed, whether copies are late, bytes of arguments, how many buffers, how many addresses; the arguments; each
// buffer's length and contents; for each address its place in the arguments, the buffer and the offset in it.
#pragma once

struct Entry {
  void (*kernel)(const void*);
  size_t bytes;
};

inline std::vector<char> contents_of(const char* path) {
  std::vector<char> contents;
  if (FILE* file = std::fopen(path, "rb")) {
    std::fseek(file, 0, SEEK_END);
    contents.resize(std::ftell(file));
    std::rewind(file);
    if (std::fread(contents.data(), 1, contents.size(), file) != contents.size()) contents.clear();
    std::fclose(file);
  }
  return contents;
}

inline int main_of(const Entry* entries, int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<char> input = contents_of(argv[1]);
  const char* at = input.data();
  auto next = [&] {
    i64 value;
    std::memcpy(&value, at, 8);
    at += 8;
    return value;
  };
  FILE* out = std::fopen(argv[2], "wb");
  if (!out || input.empty()) return 2;
  for (i64 launches = next(), number = 0; number < launches; number++) {
    i64 head[14];
    for (i64& value : head) value = next();
    const Entry& entry = entries[head[0]];
    if (size_t(head[11]) != entry.bytes) {
      std::fprintf(stderr, "cuda on cpu: %lld bytes of arguments, the kernel takes %zu\n", head[11], entry.bytes);
      return 2;
    }
    std::vector<char> arguments(at, at + head[11]);
    at += head[11];
    std::vector<std::pair<char*, i64>> buffers(head[12]);
    for (auto& [memory, bytes] : buffers) {
      bytes = next();
      void* made = nullptr;
      // Exactly as long as the array reaches, and aligned as a GPU's allocator would.
      if (posix_memalign(&made, 512, bytes ? bytes : 1)) return 2;
      memory = static_cast<char*>(made);
      std::memcpy(memory, at, bytes);
      at += bytes;
    }
    for (i64 i = 0; i < head[13]; i++) {
      i64 place = next(), buffer = next(), offset = next();
      char* address = buffers[buffer].first + offset;
      std::memcpy(arguments.data() + place, &address, 8);
    }
    dim3 grid{unsigned(head[1]), unsigned(head[2]), unsigned(head[3])};
    dim3 block{unsigned(head[4]), unsigned(head[5]), unsigned(head[6])};
    std::fprintf(stderr, "launch %lld\n", number);
    on_cpu::run(entry.kernel, arguments.data(), grid, block, head[7], int(head[8]), unsigned(head[9]), head[10] != 0);
    for (auto& [memory, bytes] : buffers) {
      if (bytes && std::fwrite(memory, 1, bytes, out) != size_t(bytes)) return 2;
      std::free(memory);
    }
  }
  return std::fclose(out) ? 2 : 0;
}
