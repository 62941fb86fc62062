/* The same GRU step with temperature sampling in plain C, to compare with: how fast could it be?

   usage: step fp32|int8 vocab_size hidden_size num_layers
   Reads numbers from standard input, writes that many characters for each, and prints the seconds
   it took. The weights are random; speed does not depend on them. As in the int8 graph, the first
   layer's input product is a table, states are 8 bits, and weights have a scale per output. */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX2__) || defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

static uint64_t seed = 88172645463325252ULL;

static double uniform(void) {
  seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
  return (double)(seed >> 11) * 0x1p-53;
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!memory) exit(1);
  memset(memory, 0, (bytes + 63) / 64 * 64);
  return memory;
}

typedef struct {
  int in, out, whole; /* whole: in 8 bits */
  float *weight;      /* [out, in] */
  int8_t *integer;    /* [out, in] */
  float *scale, *bias;
  int32_t *sum; /* of a row's integers, for the zero point 128 */
} Matrix;

static Matrix random_matrix(int in, int out, int whole) {
  Matrix m = {.in = in, .out = out, .whole = whole};
  m.bias = allocate(sizeof(float) * out);
  m.scale = allocate(sizeof(float) * out);
  m.sum = allocate(sizeof(int32_t) * out);
  float limit = 1 / sqrtf((float)in);
  if (whole) m.integer = allocate((size_t)in * out);
  else m.weight = allocate(sizeof(float) * in * out);
  for (int row = 0; row < out; row++) {
    m.scale[row] = limit / 63 / 127;
    for (int i = 0; i < in; i++) {
      float w = (float)(2 * uniform() - 1);
      if (whole) m.sum[row] += m.integer[(size_t)row * in + i] = (int8_t)lrintf(63 * w);
      else m.weight[(size_t)row * in + i] = limit * w;
    }
  }
  return m;
}

static float dot(const float *a, const float *b, int n) {
#ifdef __AVX512F__
  __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
  int i = 0;
  for (; i + 64 <= n; i += 64) {
    s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
    s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
    s2 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 32), _mm512_loadu_ps(b + i + 32), s2);
    s3 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 48), _mm512_loadu_ps(b + i + 48), s3);
  }
  float sum = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
#else
  int i = 0;
  float part[32] = {0}, sum = 0; /* independent sums, which the compiler keeps in registers */
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 32; j++) part[j] += a[i + j] * b[i + j];
  for (int j = 0; j < 32; j++) sum += part[j];
#endif
  for (; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static int32_t dot_integer(const uint8_t *a, const int8_t *b, int n) {
  int32_t sum = 0;
  int i = 0;
#if defined(__AVX512VNNI__)
  __m512i s0 = _mm512_setzero_si512(), s1 = s0;
  for (; i + 128 <= n; i += 128) {
    s0 = _mm512_dpbusd_epi32(s0, _mm512_loadu_si512(a + i), _mm512_loadu_si512(b + i));
    s1 = _mm512_dpbusd_epi32(s1, _mm512_loadu_si512(a + i + 64), _mm512_loadu_si512(b + i + 64));
  }
  sum = _mm512_reduce_add_epi32(_mm512_add_epi32(s0, s1));
#elif defined(__AVX2__)
  __m256i s = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
  for (; i + 32 <= n; i += 32) {
    __m256i x = _mm256_loadu_si256((const __m256i *)(a + i));
    __m256i pairs = _mm256_maddubs_epi16(x, _mm256_loadu_si256((const __m256i *)(b + i)));
    s = _mm256_add_epi32(s, _mm256_madd_epi16(pairs, ones));
  }
  int32_t part[8];
  _mm256_storeu_si256((__m256i *)part, s);
  for (int j = 0; j < 8; j++) sum += part[j];
#endif
  for (; i < n; i++) sum += (int32_t)a[i] * b[i];
  return sum;
}

/* y = matrix x + bias; x in real numbers or, for a matrix of integers, in 8 bits with zero 128 */
static void multiply(const Matrix *m, const float *x, const uint8_t *q, float *y) {
  for (int row = 0; row < m->out; row++) {
    size_t at = (size_t)row * m->in;
    y[row] = m->bias[row] + (m->whole ? m->scale[row] * (float)(dot_integer(q, m->integer + at, m->in) -
                                                                128 * m->sum[row])
                                      : dot(x, m->weight + at, m->in));
  }
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int whole = !strcmp(argv[1], "int8");
  int v = atoi(argv[2]), h = atoi(argv[3]), layers = atoi(argv[4]);
  float *table = allocate(sizeof(float) * v * 3 * h);
  for (int i = 0; i < v * 3 * h; i++) table[i] = (float)(2 * uniform() - 1);
  Matrix *recurrent = allocate(sizeof(Matrix) * layers), *input = allocate(sizeof(Matrix) * layers);
  for (int l = 0; l < layers; l++) {
    recurrent[l] = random_matrix(h, 3 * h, whole);
    if (l) input[l] = random_matrix(h, 3 * h, whole);
  }
  Matrix output = random_matrix(h, v, whole);
  float *hidden = allocate(sizeof(float) * layers * h), *logits = allocate(sizeof(float) * v);
  uint8_t *integer = allocate((size_t)layers * h);
  float *x = allocate(sizeof(float) * 3 * h), *y = allocate(sizeof(float) * 3 * h);
  memset(integer, 128, (size_t)layers * h);
  int token = 0;
  long count;
  while (scanf("%ld", &count) == 1) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long step = 0; step < count; step++) {
      for (int l = 0; l < layers; l++) {
        float *state = hidden + (size_t)l * h;
        uint8_t *q = integer + (size_t)l * h;
        const float *in = table + (size_t)token * 3 * h;
        if (l) multiply(&input[l], state - h, q - h, x), in = x;
        multiply(&recurrent[l], state, q, y);
        for (int i = 0; i < h; i++) {
          float update = sigmoid(in[i] + y[i]), reset = sigmoid(in[h + i] + y[h + i]);
          float candidate = tanhf(in[2 * h + i] + reset * y[2 * h + i]);
          state[i] = candidate + update * (state[i] - candidate);
        }
        if (whole)
          for (int i = 0; i < h; i++) q[i] = (uint8_t)(128 + (int)rintf(127 * state[i]));
      }
      multiply(&output, hidden + (size_t)(layers - 1) * h, integer + (size_t)(layers - 1) * h, logits);
      float largest = logits[0];
      for (int i = 1; i < v; i++) largest = logits[i] > largest ? logits[i] : largest;
      double total = 0;
      for (int i = 0; i < v; i++) total += logits[i] = expf((logits[i] - largest) / 0.8f);
      double rest = uniform() * total;
      for (token = 0; token < v - 1 && (rest -= logits[token]) >= 0; token++) {
      }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.9f\n", (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
    fflush(stdout);
  }
  return 0;
}
