/* A library that says where it lies; as a preload it tells the program. */
const char *where(void) { return WHERE; }
extern const char *preloaded __attribute__((weak));
__attribute__((constructor)) static void begin(void) {
    if (PRELOADED && &preloaded)
        preloaded = WHERE;
}
