/* The loop of core/words.py over the words of a text, where there was a compiler.
 *
 * numpy goes over a text a dozen times and writes down what it found each time; this goes over it
 * once, and what it writes stays in the nearest cache. It decides nothing: words.py works the same
 * places out without it, and looks at each of them more closely. It keeps to the limited API, so
 * that one file serves every Python from 3.12 on, holds no state, and reads no byte that its
 * arguments do not cover.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030C0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define WORD 8    /* bytes */
#define BLOCK 8192 /* words; their marks fill a quarter of a first-level cache */
#define BEYOND 3  /* words after the first whose marks are known: four of a sequence */

/* Bits of a mark: a sequence of one word; of two, its first and second; of four, its first to
 * fourth. Those of a first word: */
#define ONE 0x01
#define TWO 0x02
#define FOUR 0x08

static uint64_t
word_at(const unsigned char *text)
{
    uint64_t word;
    memcpy(&word, text, WORD);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* For each of *count* words whether a sequence may begin with it; *marks* go on for BEYOND. */
static void
begin(const uint8_t *restrict marks, uint8_t *restrict whole, Py_ssize_t count, unsigned kinds)
{
    const uint8_t one = kinds & ONE, two = kinds & TWO, four = kinds & FOUR;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint8_t pair = marks[i] & (uint8_t)(marks[i + 1] >> 1);
        uint8_t later = marks[i + 2] & (uint8_t)(marks[i + 3] >> 1);
        whole[i] = (marks[i] & one) | (pair & two) | (pair & (uint8_t)(later >> 2) & four);
    }
}

/* Add the places of what is not 0 among *count* bytes, *from* more, to *out*; how many there are. */
static Py_ssize_t
list(const uint8_t *whole, Py_ssize_t count, int64_t from, int64_t *out)
{
    Py_ssize_t found = 0, i = 0;
    for (; i + WORD <= count; i += WORD) {
        uint64_t eight;
        memcpy(&eight, whole + i, WORD);
        if (eight == 0)
            continue;
        for (int k = 0; k < WORD; k++)
            if (whole[i + k])
                out[found++] = from + i + k;
    }
    for (; i < count; i++)
        if (whole[i])
            out[found++] = from + i;
    return found;
}

static Py_ssize_t
look(const unsigned char *text, Py_ssize_t words, Py_ssize_t size, const uint8_t *table,
     unsigned shift, uint64_t fold, uint64_t factor, unsigned kinds, int64_t *out)
{
    uint8_t marks[BLOCK + BEYOND], whole[BLOCK];
    Py_ssize_t found = 0;
    for (Py_ssize_t start = 0; start < size; start += BLOCK) {
        Py_ssize_t count = size - start < BLOCK ? size - start : BLOCK;
        Py_ssize_t known = words - start < count + BEYOND ? words - start : count + BEYOND;
        const unsigned char *at = text + start * WORD;
        for (Py_ssize_t i = 0; i < known; i++)
            marks[i] = table[((word_at(at + i * WORD) | fold) * factor) >> shift];
        memset(marks + known, 0, (size_t)(count + BEYOND - known));
        begin(marks, whole, count, kinds);
        found += list(whole, count, start, out + found);
    }
    return found;
}

PyDoc_STRVAR(places_doc,
"places(text, start, words, size, table, shift, fold, factor, kinds, out) -> int\n\n"
"Write into *out*, of 64-bit integers, with which of the first *size* of *words* words of *text*,\n"
"the first at byte *start*, a sequence may begin; how many there are.");

static PyObject *
places(PyObject *module, PyObject *args)
{
    Py_buffer text, table, out;
    Py_ssize_t start, words, size, found;
    unsigned shift, kinds;
    unsigned long long fold, factor;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnny*IKKIw*:places", &text, &start, &words, &size, &table,
                          &shift, &fold, &factor, &kinds, &out))
        return NULL;
    if (start < 0 || words < 0 || size < 0 || size > words || start > text.len
        || words > (text.len - start) / WORD || shift < 32 || shift > 63
        || table.len != (Py_ssize_t)1 << (64 - shift) || size > out.len / (Py_ssize_t)sizeof(int64_t)
        || (uintptr_t)out.buf % sizeof(int64_t) != 0) {
        PyErr_SetString(PyExc_ValueError, "the arguments do not fit each other");
        found = -1;
    } else {
        found = look((const unsigned char *)text.buf + start, words, size, table.buf, shift, fold,
                     factor, kinds, out.buf);
    }
    PyBuffer_Release(&text);
    PyBuffer_Release(&table);
    PyBuffer_Release(&out);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"places", places, METH_VARARGS, places_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_words", "See _words.c.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__words(void)
{
    return PyModuleDef_Init(&definition);
}
