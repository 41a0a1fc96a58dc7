/* Small files that ask for much. Whatever such a file says, the programs answer within a bounded
 * time and memory: nothing under 1 MB takes more than 10 s of processor time or 1 GB
 * (spec/robustness.md). All children of a program count, the sandboxed reader too. */
#include "foreign_maker.h"
#include "sandbox.h"
#include "suites.h"
#include "support.h"

#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

enum { SECONDS = 10, MOST_KIB = 1 << 20, SMALL = 1 << 20 };
#define MODEL "golden/checkpoints/tiny"

static char *folder;

/* --- running --- */

typedef struct outcome {
    int status;
    double seconds; /* of processor time */
    long kib;
    char err[2048];
} outcome;

/* words: of a command line, the program first, with @ for the folder. */
static outcome run(const char *words)
{
    outcome o = {0};
    const char *build = getenv("GEMMA4_BUILD");
    char text[2048], program[PATH_MAX], *argv[24], *save, *err = test_join(folder, "err");
    size_t used = 0;
    int count = 0, status;
    for (; *words && used + strlen(folder) + 2 < sizeof text; words++) {
        if (*words == '@')
            used += (size_t)snprintf(text + used, sizeof text - used, "%s", folder);
        else
            text[used++] = *words;
    }
    text[used] = '\0';
    for (char *word = strtok_r(text, " ", &save); word && count < 23;
         word = strtok_r(NULL, " ", &save))
        argv[count++] = word;
    argv[count] = NULL;
    snprintf(program, sizeof program, "%s/%s", build ? build : "build", argv[0]);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY), to = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (null < 0 || to < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(to, STDERR_FILENO) < 0)
            _exit(126);
        execv(program, argv);
        _exit(127);
    }
    struct rusage used_up;
    ck_assert(child > 0 && wait4(child, &status, 0, &used_up) == child);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    o.seconds = (double)(used_up.ru_utime.tv_sec + used_up.ru_stime.tv_sec) +
                1e-6 * (double)(used_up.ru_utime.tv_usec + used_up.ru_stime.tv_usec);
    o.kib = used_up.ru_maxrss;
    FILE *f = fopen(err, "rb");
    ck_assert_ptr_nonnull(f);
    o.err[fread(o.err, 1, sizeof o.err - 1, f)] = '\0';
    fclose(f);
    return o;
}

static off_t size_of(const char *name)
{
    struct stat status;
    ck_assert_msg(stat(test_join(folder, name), &status) == 0, "%s is not there", name);
    return status.st_size;
}

/* --- HDF5 --- */

static void text_attribute(hid_t to, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ck_assert(attribute >= 0 && H5Awrite(attribute, type, text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* A dataset of that many rows and columns. With chunks of so many rows, none of which is written
 * but where the first is asked for. */
static void dataset(hid_t file, const char *name, hid_t type, hsize_t rows, hsize_t columns,
                    hsize_t chunk, const void *values)
{
    const hsize_t shape[2] = {rows, columns}, part[2] = {chunk, columns}, start[2] = {0, 0};
    const int rank = columns ? 2 : 1;
    hid_t space = H5Screate_simple(rank, shape, NULL), properties = H5Pcreate(H5P_DATASET_CREATE),
          links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (chunk) {
        H5Pset_chunk(properties, rank, part);
        H5Pset_deflate(properties, 9);
    }
    hid_t set = H5Dcreate2(file, name, type, space, links, properties, H5P_DEFAULT);
    ck_assert_msg(set >= 0, "%s", name);
    if (values) {
        hid_t in_memory = H5Screate_simple(rank, part, NULL);
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, part, NULL);
        ck_assert(H5Dwrite(set, type, in_memory, space, H5P_DEFAULT, values) >= 0);
        H5Sclose(in_memory);
    }
    H5Dclose(set);
    H5Pclose(links);
    H5Pclose(properties);
    H5Sclose(space);
}

static hid_t new_dump(const char *name, hsize_t tokens)
{
    const int64_t version = 1;
    hid_t file = H5Fcreate(test_join(folder, name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
          space = H5Screate(H5S_SCALAR);
    ck_assert(file >= 0);
    text_attribute(file, "format", "gemma4-activations");
    text_attribute(file, "dtype", "float32");
    hid_t attribute =
        H5Acreate2(file, "format_version", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, H5T_NATIVE_INT64, &version);
    H5Aclose(attribute);
    H5Sclose(space);
    static const int32_t twos[4096] = {2, 2, 2};
    if (tokens)
        dataset(file, "tokens", H5T_STD_I32LE, tokens, 0, tokens < 4096 ? tokens : 4096, twos);
    return file;
}

/* Two tensors of 12 rows, in a chunk each that has room for 160 MB: zeros, which deflate to a sixth
 * of a megabyte. */
static void make_bomb(void)
{
    enum { ROWS = 5 << 17 };
    static const char *const names[] = {"embed", "final_norm"};
    const hsize_t shape[2] = {12, 64}, most[2] = {H5S_UNLIMITED, 64}, chunk[2] = {ROWS, 64},
                  start[2] = {0, 0};
    const size_t size = (size_t)ROWS * 64 * sizeof(float);
    unsigned char *zeros = calloc(1, size), *packed = malloc(SMALL);
    uLongf packed_size = SMALL;
    ck_assert(zeros && packed && compress2(packed, &packed_size, zeros, size, 9) == Z_OK);
    free(zeros);
    hid_t file = new_dump("bomb.h5", 12);
    for (size_t i = 0; i < 2; i++) {
        hid_t space = H5Screate_simple(2, shape, most), properties = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_chunk(properties, 2, chunk);
        H5Pset_deflate(properties, 1);
        hid_t set =
            H5Dcreate2(file, names[i], H5T_IEEE_F32LE, space, H5P_DEFAULT, properties, H5P_DEFAULT);
        ck_assert(set >= 0 && H5Dwrite_chunk(set, H5P_DEFAULT, 0, start, packed_size, packed) >= 0);
        H5Dclose(set);
        H5Pclose(properties);
        H5Sclose(space);
    }
    H5Fclose(file);
    free(packed);
}

static void make_hdf5(void)
{
    hid_t file = new_dump("shape.h5", 12);
    dataset(file, "embed", H5T_IEEE_F32LE, (hsize_t)1 << 62, 64, 16, NULL);
    dataset(file, "logits", H5T_IEEE_F32LE, (hsize_t)1 << 31, (hsize_t)1 << 30, 0, NULL);
    H5Fclose(file);

    file = new_dump("tokens.h5", (hsize_t)1 << 62);
    H5Fclose(file);

    /* Names of one dataset: a group may have any number. */
    file = new_dump("names.h5", 12);
    dataset(file, "embed", H5T_IEEE_F32LE, 12, 64, 0, NULL);
    for (int i = 0; i < 100000; i++) {
        char name[24];
        snprintf(name, sizeof name, "x%d", i);
        H5Lcreate_hard(file, "embed", file, name, H5P_DEFAULT, H5P_DEFAULT);
    }
    H5Fclose(file);

    make_bomb();
}

/* --- safetensors --- */

static void make_safetensors(const char *name, size_t count, const char *shape)
{
    char *header;
    size_t size;
    FILE *memory = open_memstream(&header, &size);
    ck_assert_ptr_nonnull(memory);
    fputs("{\"__metadata__\":{\"format\":\"gemma4-activations\",\"format_version\":\"1\",\"dtype\":"
          "\"float32\"}",
          memory);
    for (size_t i = 0; i < count; i++)
        fprintf(memory, ",\"t%zu\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,0]}", i,
                shape);
    fputc('}', memory);
    fflush(memory);
    fprintf(memory, "%*s", (int)(7 - (size + 7) % 8), ""); /* data are aligned */
    fclose(memory);
    FILE *f = fopen(test_join(folder, name), "wb");
    ck_assert_ptr_nonnull(f);
    const uint64_t length = size;
    fwrite(&length, sizeof length, 1, f);
    ck_assert_uint_eq(fwrite(header, 1, size, f), size);
    fclose(f);
    free(header);
}

/* --- GGUF --- */

static void put(FILE *f, uint64_t number, size_t bytes)
{
    ck_assert_uint_eq(fwrite(&number, 1, bytes, f), bytes);
}

static void put_name(FILE *f, const char *name, size_t number)
{
    char text[64];
    size_t length = (size_t)snprintf(text, sizeof text, "%s%zu", name, number);
    put(f, length, 8);
    ck_assert_uint_eq(fwrite(text, 1, length, f), length);
}

/* So many keys, and so many tensors, which share all of the data. Every eighth key is an array that
 * says it holds 2^60 strings where `lies`. */
static void make_gguf(const char *name, size_t keys, size_t tensors, bool lies)
{
    FILE *f = fopen(test_join(folder, name), "wb");
    ck_assert_ptr_nonnull(f);
    put(f, 0x46554747, 4);
    put(f, 3, 4);
    put(f, tensors, 8);
    put(f, keys, 8);
    for (size_t i = 0; i < keys; i++) {
        put_name(f, "k", i);
        put(f, lies && i % 8 == 7 ? 9 : 0, 4);
        if (lies && i % 8 == 7) {
            put(f, 8, 4);
            put(f, (uint64_t)1 << 60, 8);
        } else {
            put(f, 1, 1);
        }
    }
    for (size_t i = 0; i < tensors; i++) {
        put_name(f, "t", i);
        put(f, 1, 4);
        put(f, 8, 8);
        put(f, 0, 4);
        put(f, 0, 8);
    }
    for (int i = 0; i < 64; i++)
        fputc(0, f);
    fclose(f);
}

/* --- NumPy --- */

/* Zeros under that shape, deflated: 470 MB in half a MB. */
static void make_npz(void)
{
    const size_t size = (size_t)1835937 * 64 * sizeof(float);
    test_bytes npy =
        test_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1835937, 64), }", NULL, 0);
    npy.bytes = realloc(npy.bytes, npy.size + size);
    ck_assert_ptr_nonnull(npy.bytes);
    memset(npy.bytes + npy.size, 0, size);
    npy.size += size;
    test_zip zip = {0};
    test_zip_add(&zip, "embed.npy", &npy, true);
    test_bytes_free(&npy);
    test_zip_close(&zip);
    test_write(test_join(folder, "bomb.npz"), zip.file.bytes, zip.file.size);
    test_zip_free(&zip);
    test_bytes huge = test_npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "1234", 4);
    test_write(test_join(folder, "shape.npy"), huge.bytes, huge.size);
    test_bytes_free(&huge);
}

/* --- documents --- */

static void make_repeated(const char *name, const char *before, const char *piece, size_t size)
{
    FILE *f = fopen(test_join(folder, name), "wb");
    ck_assert_ptr_nonnull(f);
    fputs(before, f);
    for (size_t at = 0; at < size; at += strlen(piece))
        fputs(piece, f);
    fclose(f);
}

static void make_documents(void)
{
    make_repeated("deep.yaml", "", "[", SMALL - 100);
    make_repeated("deep-block.yaml", "", "- ", SMALL - 100);
    make_repeated("deep-keys.yaml", "", "? ", SMALL - 100);
    make_repeated("flow.yaml", "x: ", "{a: [", SMALL - 100);
    make_repeated("items.yaml", "x:\n", "- 1\n", SMALL - 100);
    make_repeated("quotes.yaml", "x: \"", "\\\n", SMALL - 100);
    make_repeated("lines.yaml", "x: a\n", " b\n", SMALL - 100);
    make_repeated("comments.yaml", "", "#\n", SMALL - 100);
    FILE *f = fopen(test_join(folder, "keys.yaml"), "wb");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < 100000; i++)
        fprintf(f, "k%d: 1\n", i);
    fclose(f);
}

static void make_all(void)
{
    folder = test_fresh_dir();
    make_hdf5();
    make_safetensors("shape.safetensors", 3, "[4611686018427387904,0]");
    make_safetensors("many.safetensors", 16000, "[0]");
    make_safetensors("million.safetensors", 1000000, "[0]");
    make_gguf("keys.gguf", 50000, 0, false);
    make_gguf("strings.gguf", 20000, 0, true);
    make_gguf("tensors.gguf", 0, 25000, false);
    make_npz();
    make_documents();
}

/* --- */

static const struct {
    const char *file; /* "": none */
    bool larger;      /* than 1 MB: the bounds hold all the same */
    const char *words;
} CLIFFS[] = {
    {"shape.h5", false, "gemma4-check --model " MODEL " @/shape.h5"},
    {"shape.h5", false, "gemma4-check names @/shape.h5"},
    {"shape.h5", false, "gemma4-ref show @/shape.h5 embed"},
    {"tokens.h5", false, "gemma4-check --model " MODEL " @/tokens.h5"},
    {"names.h5", true, "gemma4-check --model " MODEL " @/names.h5"},
    {"names.h5", true, "gemma4-check names @/names.h5"},
    {"bomb.h5", false, "gemma4-check --model " MODEL " @/bomb.h5"},
    {"bomb.h5", false, "gemma4-ref show @/bomb.h5 embed"},
    {"shape.safetensors", false, "gemma4-check --model " MODEL " @/shape.safetensors"},
    {"many.safetensors", false, "gemma4-check --model " MODEL " @/many.safetensors"},
    {"many.safetensors", false, "gemma4-check names @/many.safetensors"},
    {"million.safetensors", true, "gemma4-check --model " MODEL " @/million.safetensors"},
    {"keys.gguf", false, "gemma4-ref facts --model @/keys.gguf"},
    {"strings.gguf", false, "gemma4-ref run --model @/strings.gguf --tokens 2"},
    {"tensors.gguf", false, "gemma4-ref run --model @/tensors.gguf --tokens 2"},
    {"bomb.npz", false, "gemma4-check names @/bomb.npz --model " MODEL},
    {"bomb.npz", false, "gemma4-check tiny-prompt @/bomb.npz --map taps --dtype float32"},
    {"shape.npy", false, "gemma4-check names @/shape.npy"},
    {"deep.yaml", false, "gemma4-check @/deep.yaml golden/dumps/tiny-prompt-float32.h5"},
    {"deep-block.yaml", false,
     "gemma4-check @/deep-block.yaml golden/dumps/tiny-prompt-float32.h5"},
    {"deep-keys.yaml", false, "gemma4-check @/deep-keys.yaml golden/dumps/tiny-prompt-float32.h5"},
    {"flow.yaml", false, "gemma4-check --manifest @/flow.yaml"},
    {"items.yaml", false, "gemma4-check --manifest @/items.yaml"},
    {"quotes.yaml", false, "gemma4-check --manifest @/quotes.yaml"},
    {"lines.yaml", false, "gemma4-check --manifest @/lines.yaml"},
    {"comments.yaml", false, "gemma4-check --manifest @/comments.yaml"},
    {"keys.yaml", false,
     "gemma4-check tiny-prompt golden/dumps/tiny-prompt-float32.h5 --map @/keys.yaml"},
};

START_TEST(little_takes_little)
{
    const double factor = GEMMA4_SANITIZED ? 10 : 1;
    outcome o = run(CLIFFS[_i].words);
    const char *newline = strchr(o.err, '\n');
    ck_assert_msg(CLIFFS[_i].larger || size_of(CLIFFS[_i].file) <= SMALL, "%s is not small",
                  CLIFFS[_i].file);
    if (getenv("CLIFFS_PRINT"))
        printf("CLIFF %s: status %d, %.2f s, %ld MB: %s\n", CLIFFS[_i].words, o.status, o.seconds,
               o.kib >> 10, o.err);
    ck_assert_msg(o.status >= 0 && o.status <= 2, "%s: status %d: %s", CLIFFS[_i].words, o.status,
                  o.err);
    ck_assert_msg(o.status != 2 || (newline && !newline[1]), "%s: expected one line: %s",
                  CLIFFS[_i].words, o.err);
    ck_assert_msg(o.seconds <= SECONDS * factor, "%s: %.1f s", CLIFFS[_i].words, o.seconds);
    ck_assert_msg(o.kib <= MOST_KIB || GEMMA4_SANITIZED, "%s: %ld KiB", CLIFFS[_i].words, o.kib);
}
END_TEST

Suite *cliffs_suite(void)
{
    Suite *suite = suite_create("cliffs");
    TCase *c = tcase_create("cliffs");
    tcase_add_unchecked_fixture(c, make_all, NULL);
    tcase_set_timeout(c, 600);
    tcase_add_loop_test(c, little_takes_little, 0, sizeof CLIFFS / sizeof *CLIFFS);
    suite_add_tcase(suite, c);
    return suite;
}
